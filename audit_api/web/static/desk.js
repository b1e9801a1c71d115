// The proof panel: asks the API for the evidence of the story that this page shows, verifies it (verify.js), and holds the page
// itself to it. Writes text alone, never markup. What a reader trusts is kept in this browser: the log's key, and how far the log was.

import { Problem, canonical, consistent, fromBase64, openKey, pinOf, verifyTrail } from "./verify.js";

const PAGE_ENTRIES = 500;
const panel = document.getElementById("proof-panel");
const texts = JSON.parse(panel.dataset.texts);
const ledger = panel.dataset.ledger.replace(/\/shard-\d+-of-\d+$/, "");
const part = (name) => panel.querySelector(`[data-${name}]`);
const text = (key, values = {}) => (texts[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
const number = (value) => value.toLocaleString(navigator.language);

// ------------------------------------------------------------------------------------------------- what is remembered

const pinName = `tally.key.${ledger}`;
const treeName = (origin) => `tally.tree.${origin}`;
let passing = {}; // where the browser keeps nothing, what is trusted lasts as long as the page

function remembered(name) {
  try {
    return localStorage.getItem(name) ?? passing[name] ?? null;
  } catch {
    return passing[name] ?? null;
  }
}

function remember(name, value) {
  passing[name] = value ?? undefined;
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // a browser that keeps nothing: see `passing`
  }
}

// ------------------------------------------------------------------------------------------------------- the evidence

class Away extends Error {}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", redirect: "error" });
  } catch (error) {
    throw new Away(error.message);
  }
  let body;
  try {
    body = JSON.parse(await answer.text());
  } catch {
    throw answer.ok ? new Problem("json") : new Away(String(answer.status));
  }
  if (!answer.ok) throw new Away(text("problem_http", { status: answer.status, title: `${body.title ?? ""} ${body.detail ?? ""}` }));
  return body;
}

async function pagesOf(trail) {
  const pages = [];
  let start = 0;
  do {
    const page = await ask(`/v1/trails/${trail}?proofs=true&start=${start}&limit=${PAGE_ENTRIES}`);
    pages.push(page);
    if (page.next !== null && !(page.next > start)) throw new Problem("json");
    start = page.next;
  } while (start !== null);
  return pages;
}

/** Every log that was seen here before still begins with what was seen; remembers what it is now. */
async function grown(notes) {
  let detail = text("detail_growth_first");
  for (const note of notes) {
    const before = JSON.parse(remembered(treeName(note.origin)) ?? "null");
    if (before && before.size !== note.size) {
      const [first, second] = before.size < note.size ? [before.size, note.size] : [note.size, before.size];
      const shard = /\/shard-(\d+)-of-\d+$/.exec(note.origin);
      const told = await ask(`/v1/consistency?first=${first}&second=${second}${shard ? `&shard=${shard[1]}` : ""}`);
      const proof = told.proof.map(fromBase64);
      const [old, now] = before.size < note.size ? [fromBase64(before.root), note.root] : [note.root, fromBase64(before.root)];
      if (proof.includes(null) || !(await consistent(first, second, old, now, proof))) throw new Problem("growth", { first: number(before.size) });
    } else if (before && before.root !== btoa(String.fromCharCode(...note.root))) {
      throw new Problem("growth", { first: number(before.size) });
    }
    if (before) detail = text("detail_growth", { first: number(before.size), size: number(Math.max(note.size, before.size)) });
    if (!before || before.size < note.size) remember(treeName(note.origin), JSON.stringify({ size: note.size, root: btoa(String.fromCharCode(...note.root)) }));
  }
  return detail;
}

// ------------------------------------------------------------------------------------------------------------ the page

const shortened = (message) => message.replace(/((?:card|jwt):[a-p]{4})[a-p]{16}/g, "$1…");
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const plain = (value) => value.replace(STEERING, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Holds each line of the page to the event that was proved for it; gives how many were compared. */
function compared(proved) {
  const shown = new Map([...proved.keys()].map((trail) => [trail, new Set()]));
  for (const row of document.querySelectorAll("tr[data-leaf]")) {
    const leaf = Number(row.dataset.leaf);
    const known = proved.get(row.dataset.trail)?.get(leaf);
    if (!known) throw new Problem("missing", { leaf });
    shown.get(row.dataset.trail).add(leaf);
    for (const cell of row.querySelectorAll("[data-fact]")) {
      const found = cell.dataset.fact === "time" ? cell.getAttribute("datetime") : cell.textContent.trim();
      const wanted = known.facts[cell.dataset.fact] ?? "";
      if (found !== (cell.dataset.fact === "time" ? wanted : plain(wanted).trim())) throw new Problem("page", { leaf, found, wanted });
    }
    const failed = known.facts.outcome === "failure" || (known.facts.error === true && !known.facts.outcome);
    if (failed !== (row.querySelector(".outcome.failure") !== null)) throw new Problem("page", { leaf, found: row.querySelector(".outcome")?.textContent ?? "", wanted: known.facts.outcome ?? "" });
    const message = row.querySelector("[data-message]");
    if (message && known.event) {
      const whole = typeof known.event.body === "string" && known.event.body ? known.event.body : null;
      if (whole !== null && !plain(shortened(whole)).startsWith(message.textContent)) throw new Problem("page", { leaf, found: message.textContent, wanted: whole });
    }
    const event = row.querySelector("[data-event]");
    if (event?.dataset.event === "part" && known.event) {
      const whole = plain(canonical(known.event)); // of a long event the page shows how its canonical JSON begins
      if (!event.textContent || !whole.startsWith(event.textContent)) throw new Problem("page", { leaf, found: "…", wanted: whole.slice(0, 200) });
    } else if (event && known.event && plain(canonical(JSON.parse(event.textContent))) !== plain(canonical(known.event))) {
      throw new Problem("page", { leaf, found: "…", wanted: canonical(known.event).slice(0, 200) });
    }
  }
  if (panel.dataset.whole === "yes") {
    for (const [trail, events] of proved) {
      const last = Math.max(...shown.get(trail));
      for (const leaf of events.keys()) {
        if (leaf < last && !shown.get(trail).has(leaf)) throw new Problem("hidden", { leaf });
      }
    }
  }
  return [...shown.values()].reduce((sum, leaves) => sum + leaves.size, 0);
}

// ------------------------------------------------------------------------------------------------------------ the panel

function tell(state, key, values = {}) {
  panel.className = `proof ${state}`;
  part("state").textContent = text(key, values);
  part("about").textContent = texts[`${key}_about`] ? text(`${key}_about`, values) : "";
}

function tellChecks(checks) {
  part("checks").hidden = checks.length === 0;
  part("list").replaceChildren(
    ...checks.map(([name, state, detail]) => {
      const item = document.createElement("li");
      item.className = state;
      item.append(`${{ good: "✓", bad: "✗", skipped: "–" }[state]} ${text(`check_${name}`)}`);
      const small = document.createElement("small");
      small.textContent = detail ?? text("detail_skipped");
      item.append(" ", small);
      return item;
    }),
  );
}

const FAILED_AT = {
  position: "chain", previous: "chain", order: "chain", entry: "chain", count: "chain", trail: "chain", digest: "digest", event: "digest", store: "digest",
  inclusion: "inclusion", proof: "inclusion", note: "signature", checkpoint: "signature", signature: "signature", nosignature: "signature",
  origin: "signature", vkey: "key", key: "key", growth: "growth", page: "page", missing: "page", hidden: "page",
};

async function verify() {
  const checks = [];
  document.querySelector("tr.false")?.classList.remove("false");
  const passed = (name, detail) => checks.push([name, "good", detail]);
  const skipped = (name, detail) => checks.push([name, "skipped", detail]);
  tell("busy", "busy");
  part("verify").disabled = true;
  try {
    if (!globalThis.crypto?.subtle) throw new Away(text("insecure"));
    const key = await openKey((await ask("/v1/checkpoint")).key);
    const pin = remembered(pinName);
    if (pin !== null && pin !== key.fingerprint) throw new Problem("key", { found: key.fingerprint, wanted: pin });
    const proved = new Map();
    const notes = new Map();
    let [entries, events, signatures] = [0, 0, true];
    for (const trail of JSON.parse(panel.dataset.trails)) {
      const report = await verifyTrail(trail, await pagesOf(trail), key);
      proved.set(trail, report.events);
      entries += report.entries;
      events += report.events.size;
      signatures &&= report.signed;
      for (const note of report.notes) if (!(notes.get(note.origin)?.size > note.size)) notes.set(note.origin, note);
    }
    const size = number(Math.max(...[...notes.values()].map((note) => note.size)));
    passed("chain", text("detail_chain", { n: number(entries), trails: proved.size }));
    passed("digest", text("detail_digest", { n: number(events) }));
    passed("inclusion", text("detail_inclusion", { n: number(entries), size }));
    if (signatures) passed("signature", text("detail_signature", { origin: [...notes.keys()].join(", ") }));
    else skipped("signature");
    if (pin !== null) passed("key", text("detail_key", { fingerprint: key.fingerprint }));
    else skipped("key", text("detail_key", { fingerprint: key.fingerprint }));
    passed("growth", await grown(notes.values()));
    const rows = compared(proved);
    passed("page", text("detail_page", { n: number(rows) }));
    const values = { entries: number(entries), events: number(events), size, rows: number(rows), fingerprint: key.fingerprint };
    if (!signatures) tell("unsure", "unsigned", values);
    else if (pin === null) tell("unsure", "unpinned", values);
    else tell("good", "good", values);
    seen = key.fingerprint;
  } catch (error) {
    if (error instanceof Problem) {
      const told = text(`problem_${error.code}`, error.values);
      document.getElementById(`leaf-${error.values.leaf}`)?.classList.add("false");
      if (FAILED_AT[error.code]) checks.push([FAILED_AT[error.code], "bad", told]);
      tell("bad", "bad", { problem: told });
    } else if (error instanceof Away) {
      tell("unsure", "away", { problem: error.message });
    } else {
      tell("bad", "bad", { problem: `${error.name}: ${error.message}` }); // an answer of a shape that nobody meant
    }
  }
  tellChecks(checks);
  part("verify").disabled = false;
  part("verify").textContent = text("again");
}

let seen = null;

function tellPin() {
  const pin = remembered(pinName);
  part("unpin").hidden = pin === null;
  part("pin").hidden = pin !== null;
  const input = part("key-form").elements.key;
  input.readOnly = pin !== null;
  input.value = pin ?? "";
  part("key-hint").textContent = text(pin === null ? "key_hint" : "pinned");
}

part("verify").addEventListener("click", verify);
part("key-form").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const pin = await pinOf(part("key-form").elements.key.value);
  if (pin === null) part("key-hint").textContent = text("key_bad");
  else if (seen !== null && pin !== seen) part("key-hint").textContent = text("key_other");
  else {
    remember(pinName, pin);
    tellPin();
    await verify();
  }
});
part("unpin").addEventListener("click", () => {
  remember(pinName, null);
  tellPin();
  tell("idle", "idle");
  tellChecks([]);
});
tellPin();
part("controls").hidden = false;
part("scriptless").hidden = true; // shown for as long as no script runs, whatever the reason
