"""What may our user do on OpenSearch? Asked of the security plugin itself, which answers what it would say, and does nothing.

``perform_permission_check=true`` on a request has the plugin judge it instead of carrying it out (3.2 and later). A server that does not
know the parameter refuses the request; one question that changes nothing in any case is asked first to see that it does.
https://docs.opensearch.org/latest/security/access-control/permissions/
"""

from typing import Any

import msgspec

from collector.errors import TallyError
from collector.store.opensearch.connection import Refusal
from collector.store.opensearch.layout import Layout
from deploy.examining import Chart
from deploy.examining.questions import Questions

__all__ = ["examine_index_rights", "examine_store_rights"]

_NO_MONTH = "0000.00"
"""Of an index whose name is one of a month's, and that is never there: nothing of ours would be hit by a request that was carried out."""


class _Who(msgspec.Struct):
    user_name: str
    roles: list[str] = []


class _Verdict(msgspec.Struct):
    allowed: bool = msgspec.field(name="accessAllowed")


def examine_store_rights(chart: Chart, questions: Questions) -> None:
    """The rights of the store's user: can it add or read what it must, and nothing more than that?"""
    who = _who(chart, questions)
    if who is None:
        return
    settings = questions.settings
    layout = Layout(prefix=settings.prefix, shards=1, replicas=0)
    events = f"{settings.prefix}-events-{_NO_MONTH}"
    with questions.about(chart, "rights"):
        can = {
            "adds batches": _may(questions, "PUT", f"/{layout.batches}/_create/doctor", {}),
            "reads": _may(questions, "POST", f"/{layout.batches}/_search", {}),
            "says what the log holds": _may(questions, "PUT", f"/{layout.acknowledged}/_doc/doctor", {}),
        }
        must_not = {
            "update": _may(questions, "POST", f"/{events}/_update/doctor", {"doc": {}}),
            "delete": _may(questions, "DELETE", f"/{events}/_doc/doctor"),
            "change mappings": _may(questions, "PUT", f"/{events}/_mapping", {"properties": {}}),
            "change settings": _may(questions, "PUT", f"/{events}/_settings", {"index.refresh_interval": "1s"}),
            "drop indexes": _may(questions, "DELETE", f"/{events}"),
        }
        _tell(chart, who, can, must_not, role="tally_collector, tally_correlator or tally_reader, as the process needs")


def examine_index_rights(chart: Chart, questions: Questions) -> None:
    """The rights of the trail index's user."""
    who = _who(chart, questions)
    if who is None:
        return
    settings = questions.settings
    trails = f"{settings.prefix}-trails"
    events = f"{settings.prefix}-events-{_NO_MONTH}"
    with questions.about(chart, "rights"):
        can = {
            "searches": _may(questions, "POST", f"/{trails}/_search", {}),
            "keeps the index": _may(questions, "PUT", f"/{trails}/_doc/doctor", {}),
        }
        must_not = {
            "delete events": _may(questions, "DELETE", f"/{events}/_doc/doctor"),
            "drop indexes of events": _may(questions, "DELETE", f"/{events}"),
        }
        _tell(chart, who, can, must_not, role="tally_correlator, or tally_reader for the API and the command line")


def _tell(chart: Chart, who: _Who, can: dict[str, bool], must_not: dict[str, bool], *, role: str) -> None:
    named = f"{who.user_name} ({', '.join(sorted(who.roles)) or 'no role'})"
    able = [what for what, yes in can.items() if yes]
    too_much = [what for what, yes in must_not.items() if yes]
    if not able:
        chart.fail(
            "rights", f"{named} may do nothing that we need", f"give it the role {role} (deploy/opensearch/roles.yml)"
        )
    elif too_much:
        chart.warn(
            "rights",
            f"{named} may also {', '.join(too_much)}: who has its password can take events away",
            f"a user with the role {role} (deploy/opensearch/roles.yml)",
        )
    else:
        chart.ok("rights", f"{named} {', '.join(able)}; and may not {', '.join(must_not)}")


def _who(chart: Chart, questions: Questions) -> _Who | None:
    try:
        who = questions.own(_Who, "GET", "/_plugins/_security/authinfo")
    except Refusal:
        chart.warn(
            "rights",
            "the cluster has no security plugin: whoever reaches it may read everything and drop every index",
            "install the plugin with deploy/opensearch/roles.yml, and let only our processes reach the cluster until then",
        )
        return None
    except TallyError as error:
        chart.unknown("rights", f"no answer: {error}")
        return None
    try:
        # changes nothing where the parameter is not known, nor where it is
        questions.own(_Verdict, "GET", "/_cluster/health", perform_permission_check="true")
    except TallyError:
        chart.unknown(
            "rights",
            f"{who.user_name} has the roles {', '.join(sorted(who.roles)) or '(none)'}; what they allow this cluster does not tell",
            "OpenSearch 3.2 and later does (perform_permission_check)",
        )
        return None
    return who


def _may(questions: Questions, method: str, path: str, body: Any = None) -> bool:
    return questions.own(_Verdict, method, path, body, perform_permission_check="true").allowed
