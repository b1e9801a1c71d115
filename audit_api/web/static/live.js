// The live page: goes on from the place where the served list ends, by server-sent events. Writes text alone, never markup.
// A pause closes the connection; going on asks for what came meanwhile, so nothing is missed. Without this script the page is a list to load again.

const { after: served, base, kind, most, texts: given, zone } = document.getElementById("tail").dataset;
const list = document.querySelector("[data-list]");
const texts = Object.assign(Object.create(null), JSON.parse(given));
const state = document.querySelector("[data-state]");
const button = document.querySelector("[data-pause]");
const text = (key, values = {}) => (texts[key] ?? key).replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
const clocks = new Intl.DateTimeFormat("en-GB", { timeZone: zone, timeStyle: "medium" });

let after = served;
let source = null;
let paused = false;

/** A trail id's family, name and value, percent-decoded; the id itself where it is none. */
function told(trail) {
  const parts = trail.split("/");
  const tenant = parts[0] === "tenant" && parts.length > 2 ? plain(parts.splice(0, 2)[1]) : "";
  const family = texts[`kind_${parts[0]}`] ?? parts[0];
  const value = plain(parts.at(-1));
  const name = parts.length > 2 ? ` ${plain(parts.slice(1, -1).join("/"))}` : "";
  return { about: `${tenant ? `${tenant} · ` : ""}${family}${name}`, value };
}

function plain(part) {
  let decoded = part;
  try {
    decoded = decodeURIComponent(part);
  } catch {
    // as it stands
  }
  return decoded.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function element(name, content, properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  if (content) made.textContent = content;
  return made;
}

function add(what, verdict) {
  const { about, value } = told(what.trail);
  const clock = clocks.format(new Date(what.recorded));
  const row = element("li", "", { className: "fresh" });
  const name = verdict && /^[a-z]{1,20}$/.test(verdict) ? verdict : "new";
  const link = element("a", "", { href: `${base}/trails/${what.trail}` });
  link.append(element("small", about), ` ${value}`);
  row.append(element("time", clock, { dateTime: what.recorded }), " ", element("span", verdict ? (texts[verdict] ?? verdict) : text("new"), { className: `status ${name}` }), " ", link);
  list.prepend(row);
  while (list.children.length > Number(most)) list.lastElementChild.remove();
}

function heard(event, verdict) {
  after = event.lastEventId;
  const what = JSON.parse(event.data);
  add(what, verdict ? String(what.verdict?.verdict ?? "") : "");
}

function open() {
  const query = new URLSearchParams();
  if (kind) query.set("kind", kind);
  if (after) query.set("after", after);
  source = new EventSource(`/v1/live?${query}`);
  source.addEventListener("open", () => say("on"));
  source.addEventListener("trail", (event) => heard(event, false));
  source.addEventListener("verdict", (event) => heard(event, true));
  source.addEventListener("error", () => say(source.readyState === EventSource.CLOSED ? "gone" : "again"));
}

function say(key) {
  state.dataset.state = key;
  if (state.textContent !== text(key)) state.textContent = text(key);
}

button.addEventListener("click", () => {
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = text(paused ? "resume" : "pause");
  if (paused) {
    source.close();
    say("paused");
  } else {
    open();
  }
});

document.querySelector("[data-controls]").hidden = false;
open();
