// Verifies what the API answers about a trail, with nothing but WebCrypto: entries chained by hash, events under their digests,
// entries in the signed tree, the tree's checkpoint under the log's key. Formats: docs/format.md; RFC 6962 section 2.1,
// RFC 9162 sections 2.1.3.2 and 2.1.4.2, C2SP signed-note and tlog-checkpoint. No DOM, no network: it runs under node as well.

const utf8 = new TextEncoder();
const ED25519 = 1;
const MAX_ENTRY_BYTES = 65535;
const KINDS = new Set(["event", "batch", "gap", "fork", "link", "verdict", "enrolment"]);

/** What does not hold: `code` names the sentence in the catalogue, `values` what stands in it. */
export class Problem extends Error {
  constructor(code, values = {}) {
    super(`${code} ${JSON.stringify(values)}`);
    this.code = code;
    this.values = values;
  }
}

// ---------------------------------------------------------------------------------------------------------------- bytes

/** RFC 8785 of a value that JSON.parse gave: members by UTF-16 code units, numbers as ECMAScript prints them. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object") {
    const members = Object.keys(value).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    return `{${members.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** Standard base64 in its one spelling; null for anything else. */
export function fromBase64(text) {
  if (typeof text !== "string" || text.length % 4 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return null;
  let raw;
  try {
    raw = atob(text);
  } catch {
    return null;
  }
  return btoa(raw) === text ? Uint8Array.from(raw, (char) => char.charCodeAt(0)) : null;
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
export const leafHash = (entry) => sha256(joined(Uint8Array.of(0), entry));
const nodeHash = (left, right) => sha256(joined(Uint8Array.of(1), left, right));
const odd = (number) => number % 2 === 1;
const half = (number) => Math.floor(number / 2); // sizes go beyond 32 bits, where JavaScript's shifts end

/** Whether the leaf of this hash stands at `index` in the tree of `size` leaves with this root (RFC 9162 section 2.1.3.2). */
export async function included(leaf, index, size, proof, root) {
  if (!Number.isSafeInteger(index) || index < 0 || index >= size) return false;
  let [node, last, hash] = [index, size - 1, leaf];
  for (const part of proof) {
    if (part.length !== 32 || last === 0) return false;
    if (odd(node) || node === last) {
      hash = await nodeHash(part, hash);
      while (!odd(node) && node !== 0) [node, last] = [half(node), half(last)];
    } else {
      hash = await nodeHash(hash, part);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && same(hash, root);
}

/** Whether the tree of `second` leaves begins with the one of `first` leaves (RFC 9162 section 2.1.4.2). */
export async function consistent(first, second, firstRoot, secondRoot, proof) {
  if (first > second || proof.some((part) => part.length !== 32)) return false;
  if (first === second) return proof.length === 0 && same(firstRoot, secondRoot);
  if (first === 0) return proof.length === 0;
  let path = proof;
  let power = first;
  while (!odd(power)) power = half(power);
  if (power === 1) path = [firstRoot, ...proof];
  if (path.length === 0) return false;
  let [node, last] = [first - 1, second - 1];
  while (odd(node)) [node, last] = [half(node), half(last)];
  let [before, after] = [path[0], path[0]];
  for (const part of path.slice(1)) {
    if (last === 0) return false;
    if (odd(node) || node === last) {
      before = await nodeHash(part, before);
      after = await nodeHash(part, after);
      while (!odd(node) && node !== 0) [node, last] = [half(node), half(last)];
    } else {
      after = await nodeHash(after, part);
    }
    [node, last] = [half(node), half(last)];
  }
  return last === 0 && same(before, firstRoot) && same(after, secondRoot);
}

// ------------------------------------------------------------------------------------------------------------------ keys

async function keyId(name, key) {
  return (await sha256(joined(utf8.encode(`${name}\n`), Uint8Array.of(ED25519), key))).slice(0, 4);
}

/** SHA-256 of a public key, as people compare it. */
export const fingerprint = async (key) => `SHA256:${hex(await sha256(key))}`;

/** A verifier key (C2SP signed-note): `<name>+<key id>+base64(0x01 ‖ public key)`. */
export async function openKey(vkey) {
  const found = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/u.exec(vkey);
  const raw = found && fromBase64(found[3]);
  if (!raw || raw.length !== 33 || raw[0] !== ED25519) throw new Problem("vkey");
  const key = raw.slice(1);
  if (hex(await keyId(found[1], key)) !== found[2]) throw new Problem("vkey");
  return { name: found[1], key, fingerprint: await fingerprint(key) };
}

/** The fingerprint in what a person pasted: a fingerprint, or a verifier key; null when it is neither. */
export async function pinOf(text) {
  const plain = text.trim();
  if (/^SHA256:[0-9a-f]{64}$/i.test(plain)) return `SHA256:${plain.slice(7).toLowerCase()}`;
  try {
    return (await openKey(plain)).fingerprint;
  } catch {
    return null;
  }
}

// ---------------------------------------------------------------------------------------------------------- checkpoints

/** A checkpoint in its signed note. Raises `Problem`. */
export function openNote(note) {
  const end = note.lastIndexOf("\n\n");
  if (end < 0 || !note.endsWith("\n")) throw new Problem("note", { what: "it has no signatures" });
  const text = note.slice(0, end + 1);
  const lines = text.split("\n");
  const size = Number(lines[1]);
  const root = fromBase64(lines[2]);
  if (lines.length < 4 || !lines[0]) throw new Problem("note", { what: "it has no origin" });
  if (!/^(0|[1-9][0-9]{0,15})$/.test(lines[1]) || !Number.isSafeInteger(size)) throw new Problem("note", { what: "its size is no number" });
  if (!root || root.length !== 32) throw new Problem("note", { what: "its root is no hash" });
  const signatures = note.slice(end + 2, -1).split("\n").map((line) => {
    const found = /^— (\S+) (\S+)$/u.exec(line);
    const raw = found && fromBase64(found[2]);
    if (!raw || raw.length < 5) throw new Problem("note", { what: "a signature line is malformed" });
    return { name: found[1], id: raw.slice(0, 4), signature: raw.slice(4) };
  });
  return { text, origin: lines[0], size, root, signatures };
}

/**
 * Holds a note to the log's key. True: signed; false: this browser knows no Ed25519, so it could not be told. Raises `Problem`.
 * A shard's log is signed by the ledger's key under the shard's name.
 */
export async function signed(note, key) {
  const rest = note.origin.startsWith(key.name) ? note.origin.slice(key.name.length) : null;
  if (rest === null || !/^(\/shard-[1-9][0-9]?-of-[1-9][0-9]?)?$/.test(rest)) throw new Problem("origin", { found: note.origin });
  const id = await keyId(note.origin, key.key);
  const ours = note.signatures.filter((one) => one.name === note.origin && same(one.id, id));
  if (ours.length === 0) throw new Problem("nosignature");
  let imported;
  try {
    imported = await crypto.subtle.importKey("raw", key.key, { name: "Ed25519" }, false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError" || error.name === "SyntaxError") return false;
    throw new Problem("vkey");
  }
  for (const one of ours) {
    if (!(await crypto.subtle.verify({ name: "Ed25519" }, imported, one.signature, utf8.encode(note.text)))) throw new Problem("signature");
  }
  return true;
}

// --------------------------------------------------------------------------------------------------------------- trails

/**
 * Holds the pages of one trail, from its first entry to its last, to what they say of themselves. Raises `Problem`.
 * Gives what was proved: counts, the checkpoints used, and each event by its leaf.
 */
export async function verifyTrail(trail, pages, key) {
  const notes = new Map();
  const events = new Map();
  let [previous, position, recorded, proofs, signatures] = [null, 0, "", 0, true];
  for (const page of pages) {
    if (page.trail !== trail) throw new Problem("trail");
    const note = openNote(page.checkpoint.note);
    const stated = page.checkpoint;
    if (stated.origin !== note.origin || stated.size !== note.size || !same(fromBase64(stated.root) ?? [], note.root)) throw new Problem("checkpoint");
    if (!notes.has(page.checkpoint.note)) {
      signatures = (await signed(note, key)) && signatures;
      notes.set(page.checkpoint.note, note);
    }
    for (const row of page.entries) {
      const { leaf, entry } = row;
      const data = utf8.encode(canonical(entry));
      if (!entry || entry.v !== 1 || entry.trail !== trail || !KINDS.has(entry.kind) || data.length > MAX_ENTRY_BYTES) throw new Problem("entry", { leaf });
      if (entry.position !== position) throw new Problem("position", { leaf, found: entry.position, wanted: position });
      const named = entry.previous ?? null;
      if (previous === null ? named !== null : named === null || named.leaf !== previous.leaf || named.hash !== previous.hash) throw new Problem("previous", { leaf });
      if ((previous !== null && leaf <= previous.leaf) || entry.recorded < recorded) throw new Problem("order", { leaf });
      const hash = await leafHash(data);
      const proof = (row.proof ?? []).map(fromBase64);
      if (!Array.isArray(row.proof) || proof.some((part) => part === null)) throw new Problem("proof", { leaf });
      if (!(await included(hash, leaf, note.size, proof, note.root))) throw new Problem("inclusion", { leaf });
      if (entry.kind === "event") await oneEvent(row, events);
      previous = { leaf, hash: hex(hash) };
      [position, recorded, proofs] = [position + 1, entry.recorded, proofs + 1];
    }
  }
  const wanted = pages.at(-1)?.summary.entries ?? 0;
  if (position !== wanted) throw new Problem("count", { found: position, wanted, trail });
  return { entries: position, proofs, events, notes: [...notes.values()], signed: signatures };
}

async function oneEvent({ leaf, entry, event, problem, retired }, events) {
  if (problem) throw new Problem("store", { leaf, problem });
  if (event === null || event === undefined) {
    if (!retired) throw new Problem("event", { leaf });
    events.set(leaf, { facts: entry.facts, event: null });
    return;
  }
  const digest = hex(await sha256(utf8.encode(canonical(event))));
  if (digest !== entry.facts.digest) throw new Problem("digest", { leaf });
  events.set(leaf, { facts: entry.facts, event });
}
