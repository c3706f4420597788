// The page: two modes over the same sessions. State is here, drawing is below it, keys and buttons at the end.

import { drawBars, drawTrend, median, record, STEPS, steps } from "./charts.js";
import { count, facts, milliseconds, text } from "./facts.js";
import { ago, Session } from "./sessions.js";
import { drawSignal } from "./signal.js";
import { connect, fetchSession } from "./wire.js";

const $ = (id) => document.getElementById(id);
const sessions = new Map();
const link = { connected: false, denied: false };
const broker = { connected: true };
const display = { own: null, unshown: 0, refused: 0, unarchived: 0, problem: "" };
const tiles = new Map();
let chosen = null; // name of the session the operator looks at
let picked = false; // the operator chose it
let held = null; // the window that is looked at while paused
let withOriginal = false;
let drawing = false;
let fetching = false;

connect({
  link: (connected, denied) => {
    Object.assign(link, { connected, denied });
    draw();
  },
  note: (note) => {
    if (note.type === "broker") Object.assign(broker, note);
    else if (note.type === "display") take(note);
    else session(note.session)[note.type] = note[note.type];
    draw();
  },
  frame: (header, pictures) => {
    const of = session(header.session);
    of.add(header, pictures, performance.now());
    of.prune(held);
    draw();
  },
});
setInterval(draw, 1000); // ages go on without messages

function session(name) {
  if (!sessions.has(name)) sessions.set(name, new Session(name));
  return sessions.get(name);
}

/** Take the display's own word: which sessions it shows, and what is wrong with it. */
function take(note) {
  Object.assign(display, note);
  link.problem = note.problem;
  for (const [name, of] of sessions) {
    if (note.sessions.includes(name) || of.windows.includes(held)) continue;
    of.forget();
    sessions.delete(name);
  }
}

/** Choose a session where the operator has not: the display's own, else one that runs. */
function choose() {
  const now = sessions.get(chosen);
  if (now && (picked || now.name === display.own || (now.arrived.length && !sessions.has(display.own)))) return;
  const all = [...sessions.values()];
  chosen = (sessions.get(display.own) ?? all.find((of) => !of.over) ?? now ?? all[0])?.name ?? null;
  picked = false;
}

const NOBODY = new Session("");
const current = () => sessions.get(chosen) ?? NOBODY;
const looked = () => held ?? current().newest;
const savable = () => held ?? current().finals.at(-1);

/** Draw once a screen frame, however many messages came. */
function draw() {
  if (drawing) return;
  drawing = true;
  const paint = () => {
    drawing = false;
    choose();
    drawBar();
    if (document.body.dataset.mode === "view") drawWall();
    else drawDesk();
  };
  if (document.hidden) setTimeout(paint, 500);
  else requestAnimationFrame(paint);
}

function drawBar() {
  const now = performance.now();
  const of = current();
  const [state, words] = held ? ["paused", `Paused, picture of ${ago(now - held.at)}`] : of.state(link, broker, now);
  $("state").dataset.state = document.body.dataset.state = state;
  // Read out changes of state, not every second of an age.
  $("state").setAttribute("aria-live", state === "live" || $("state").dataset.said === state ? "off" : "polite");
  $("state").dataset.said = state;
  text($("state-text"), words);
  text($("data"), of.data);
  $("data").hidden = !of.data;
  $("sessions").hidden = sessions.size < 2;
  text($("unshown"), display.unshown ? `and ${display.unshown} more that find no place` : "");
  const names = [...sessions.keys()];
  if (JSON.stringify(names) !== JSON.stringify([...$("session").options].map((option) => option.value))) {
    $("session").replaceChildren(...names.map((name) => new Option(name, name)));
  }
  if (chosen !== null && $("session").value !== chosen) $("session").value = chosen;
  $("pause").setAttribute("aria-pressed", String(held !== null));
  $("save").disabled = !savable();
  $("download").disabled = fetching || !of.windows.length;
  document.title = of.data ? `${words} · ${of.data} · minddiffuser` : "minddiffuser";
}

/** Cross-fade a frame to a picture; without one, show what there is to say. */
function show(frame, picture, alt, empty) {
  const last = [...frame.querySelectorAll("img:not(.leaving)")].at(-1);
  const note = frame.querySelector(".empty");
  if (note) text(note, picture ? "" : empty);
  if (last && picture && last.dataset.url === picture.url) {
    last.alt = alt;
    return;
  }
  if (!picture && !last) return;
  let fading = last;
  if (picture) {
    const image = fading = new Image();
    image.alt = alt;
    image.dataset.url = picture.url;
    image.dataset.sha256 = picture.sha256;
    image.className = "arriving";
    image.onload = () => requestAnimationFrame(() => image.classList.remove("arriving"));
    image.onerror = () => {
      image.classList.remove("arriving");
      image.alt = "This picture cannot be shown";
    };
    image.src = picture.url;
    frame.append(image);
  }
  if (last) {
    last.classList.add("leaving");
    last.classList.toggle("fading", !picture);
    last.alt = "";
    const remove = () => last.remove();
    fading.addEventListener("transitionend", remove, { once: true });
    setTimeout(remove, 1500); // a page in the background runs no transitions
  }
}

function describe(of, window, kind) {
  const label = eventLabel(window);
  const names = { original: "Picture shown", preview: "Stage 1 reconstruction", picture: "Stage 2 reconstruction" };
  return `${names[kind]}${label ? ` for ${label}` : ""}${kind !== "original" && of.data ? `, from ${of.data}` : ""}`;
}

function eventLabel(window) {
  const event = window?.meta.event;
  return (typeof event === "object" ? event?.label : event) ?? "";
}

function drawWall() {
  for (const [name, tile] of tiles) {
    if (sessions.has(name)) continue;
    tile.remove();
    tiles.delete(name);
  }
  $("wall").style.setProperty("--columns", Math.ceil(Math.sqrt(Math.max(1, sessions.size))));
  if (!sessions.size) $("wall").dataset.empty = "true";
  else delete $("wall").dataset.empty;
  for (const of of sessions.values()) {
    const tile = tiles.get(of.name) ?? makeTile(of.name);
    const window = held && of === current() ? held : of.windows.findLast((w) => w.pictures.preview || w.pictures.picture);
    const kind = window?.pictures.picture ? "picture" : "preview";
    const picture = window?.pictures[kind];
    show(tile.querySelector(".backdrop"), picture, "", "");
    show(tile.querySelector(".frame"), picture, window ? describe(of, window, kind) : "", of.state(link, broker, performance.now())[1]);
    tile.dataset.stage = kind;
    const original = withOriginal ? window?.pictures.original : undefined;
    tile.querySelector(".inset").hidden = !original;
    show(tile.querySelector(".inset"), original, window ? describe(of, window, "original") : "", "");
    text(tile.querySelector(".name"), sessions.size > 1 ? of.name : "");
    text(tile.querySelector(".source"), of.data);
    const confidence = window?.meta.confidence;
    tile.querySelector(".gauge i").style.width = `${100 * (confidence ?? 0)}%`;
  }
}

function makeTile(name) {
  const tile = document.createElement("article");
  tile.className = "tile";
  tile.innerHTML = `<div class="backdrop" aria-hidden="true"></div><div class="frame"><span class="empty"></span></div>
    <div class="inset" hidden></div><footer><span class="name"></span><span class="source"></span>
    <span class="gauge" aria-hidden="true"><i></i></span></footer>`;
  tiles.set(name, tile);
  $("wall").append(tile);
  return tile;
}

function drawDesk() {
  const of = current();
  const window = looked();
  for (const slot of document.querySelectorAll(".slot")) {
    const kind = slot.dataset.kind;
    const picture = window?.pictures[kind];
    const coming = window && kind === "picture" && window.stage === "preview" && !picture;
    slot.classList.toggle("coming", Boolean(coming));
    const abstained = window?.stage === "abstained" && kind !== "original";
    const missing = { original: window ? "not known" : "", preview: window?.pictures.picture ? "came before this page" : "", picture: "" }[kind];
    show(slot.querySelector(".frame"), picture, describe(of, window, kind), abstained ? "no picture" : missing);
  }
  const took = window ? steps(window.meta) : [];
  const sum = (upTo) => took.slice(0, upTo).every((v) => v !== null) && took.length ? took.slice(0, upTo).reduce((a, b) => a + b, 0) : null;
  text($("about-original"), eventLabel(window) || (window ? window.id : ""));
  text($("about-preview"), window?.pictures.preview ? milliseconds(sum(3)) : "");
  text($("about-picture"), window?.pictures.picture ? milliseconds(sum(4)) : "");
  drawNotice(of, window);
  drawStrip(of, window);
  drawConfidence(of, window);
  drawLatency(of, window, sum(5));
  drawSignal(of);
  drawPipeline(of, window);
}

function drawNotice(of, window) {
  const [state, words] = of.state(link, broker, performance.now());
  const lost = window?.meta.samples_lost;
  let notice = "";
  if (state === "error" || state === "stale" || state === "ended") notice = `${words}. What you see is the last that came.`;
  else if (window?.stage === "abstained") notice = `No picture for this window: ${window.meta.reason ?? "confidence too low"}.`;
  else if (lost) notice = `${lost} samples were lost inside this window.`;
  if (!window) notice = "";
  $("notice").hidden = !notice;
  text($("notice"), notice);
}

function drawStrip(of, window) {
  const finals = of.finals.slice(-40).reverse();
  text($("strip-count"), of.finals.length ? String(of.finals.length) : "");
  const known = new Map([...$("strip").children].map((item) => [item.dataset.key, item]));
  const items = finals.map((w) => known.get(w.key) ?? makeThumb(w));
  const same = items.length === $("strip").children.length && items.every((item, i) => item === $("strip").children[i]);
  if (!same) $("strip").replaceChildren(...items);
  items.forEach((item, i) => {
    item.firstChild.setAttribute("aria-current", String(held !== null && finals[i] === window));
    const image = item.querySelector("img");
    if (image.dataset.url !== finals[i].pictures.picture.url) {
      image.src = image.dataset.url = finals[i].pictures.picture.url;
    }
  });
}

function makeThumb(window) {
  const item = document.createElement("li");
  item.dataset.key = window.key;
  const button = document.createElement("button");
  const image = new Image();
  image.alt = "";
  button.append(image);
  button.setAttribute("aria-label", `Look at the picture of ${eventLabel(window) || window.id}`);
  button.onclick = () => hold(held === window ? null : window);
  item.append(button);
  return item;
}

function drawConfidence(of, window) {
  const confidence = window?.meta.confidence;
  const known = Number.isFinite(confidence);
  text($("confidence"), known ? confidence.toFixed(2) : "–");
  $("gauge").setAttribute("aria-valuenow", known ? confidence.toFixed(2) : "0");
  $("gauge").firstElementChild.style.width = `${100 * (known ? confidence : 0)}%`;
  drawTrend($("trend"), of.finals);
}

function drawLatency(of, window, total) {
  const finals = of.finals;
  drawBars($("bars"), finals, window);
  text($("latency"), milliseconds(total));
  const all = finals.slice(-40).map((w) => steps(w.meta));
  const now = window ? steps(window.meta) : [];
  facts($("legend"), STEPS.map(([key, name], i) => [name, milliseconds(now[i]), `median ${milliseconds(median(all.map((s) => s[i])))}`, key]));
}

function drawPipeline(of, window) {
  const [rates, queues, drops, latency] = ["rates", "queues", "drops", "latency_ms"].map((key) => record(of.metrics[key]));
  const dropped = Object.values(drops).filter(Number.isFinite).reduce((a, b) => a + b, 0);
  const meta = window?.meta ?? {};
  const models = Object.values(record(meta.models)).join(", ");
  facts($("pipeline"), [
    ["Pictures a second", Number.isFinite(rates.pictures) ? rates.pictures.toFixed(2) : "–"],
    ["Latency p50", milliseconds(latency.total?.p50)],
    ["Latency p99", milliseconds(latency.total?.p99)],
    ["Waiting", count(Object.values(queues).filter(Number.isFinite).reduce((a, b) => a + b, 0))],
    ["Left out", count(dropped), Object.entries(drops).map(([k, v]) => `${k}: ${v}`).join("\n"), dropped > 0 ? "bad" : ""],
    ...(display.refused ? [["Messages refused", count(display.refused), "Of any client, because they are none of ours", "bad"]] : []),
    ...(display.unarchived ? [["Not archived", count(display.unarchived), "The archive's folder could not be written", "bad"]] : []),
    ["Backend", meta.backend ?? "–", models],
    ["Seed", meta.seed === undefined ? "–" : String(meta.seed)],
  ]);
}

// ---- keys and buttons

function hold(window) {
  held = window ?? null;
  draw();
}

function step(by) {
  const finals = current().finals;
  if (!finals.length) return;
  const at = held ? finals.indexOf(held) : finals.length;
  const next = Math.max(0, at + by);
  hold(next >= finals.length ? null : finals[next]);
}

function setMode(mode) {
  document.body.dataset.mode = mode;
  $("mode").setAttribute("aria-pressed", String(mode === "view"));
  const query = new URLSearchParams(location.search);
  query.set("mode", mode);
  history.replaceState(null, "", `?${query}${location.hash}`);
  draw();
}

function save() {
  const window = savable();
  if (!window) return;
  const name = window.id.replace(/[^A-Za-z0-9_-]+/g, "_");
  for (const [kind, { blob }] of Object.entries(window.pictures)) {
    download(`${name}.${kind}.${blob.type.split("/")[1].replace("jpeg", "jpg")}`, blob);
  }
  download(`${name}.json`, new Blob([JSON.stringify(window.meta, null, 2)], { type: "application/json" }));
}

async function saveSession() {
  const { name, windows } = current();
  if (fetching || !windows.length) return;
  fetching = true;
  draw();
  try {
    download(`${name}.zip`, await fetchSession(name));
  } catch (error) {
    say(`The session could not be downloaded: ${error.message}`);
  } finally {
    fetching = false;
    draw();
  }
}

/** Say something that passes. */
function say(words) {
  text($("said"), words);
  $("said").hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").hidden = true; }, 8000);
}

function download(name, blob) {
  const anchor = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(blob) });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}

const toggle = () => hold(held ? null : current().newest);
const keys = {
  v: () => setMode(document.body.dataset.mode === "view" ? "operate" : "view"),
  " ": toggle,
  s: save,
  d: saveSession,
  o: () => { withOriginal = !withOriginal; draw(); },
  f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
  "?": () => $("keys").showModal(),
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  Escape: () => hold(null),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  if (!(event.target instanceof Element)) return;
  if (event.target.matches("select, input") || (event.key === " " && event.target.matches("button"))) return;
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
$("mode").onclick = keys.v;
$("pause").onclick = toggle;
$("save").onclick = save;
$("download").onclick = saveSession;
$("help").onclick = keys["?"];
$("session").onchange = ({ target }) => { chosen = target.value; picked = true; hold(null); };
let quiet;
const stir = () => { // in the full picture the bar leaves with the pointer
  document.body.classList.remove("quiet");
  clearTimeout(quiet);
  quiet = setTimeout(() => document.body.classList.add("quiet"), 3000);
};
for (const type of ["pointermove", "keydown", "focusin"]) document.addEventListener(type, stir);
stir();
if (new URLSearchParams(location.search).get("mode") === "view") setMode("view");
