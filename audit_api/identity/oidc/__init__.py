"""OpenID Connect: tokens of an identity provider, its keys, and what its claims mean here. Needs the extra `oidc`."""
