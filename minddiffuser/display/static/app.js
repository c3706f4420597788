// The page: two modes over the same sessions. State and drawing are here; keys and buttons are in controls.js.

import { bind } from "./controls.js";
import { followExperiment } from "./experiment.js";
import { text } from "./facts.js";
import { drawConfidence, drawDetails, drawLatency } from "./figures.js";
import { beside, drawRooms } from "./rooms.js";
import { keepPictures, Session, ago } from "./sessions.js";
import { drawSignal } from "./signal.js";
import { drawStrip } from "./strip.js";
import { Traces } from "./traces.js";
import { drawWall } from "./wall.js";
import { connect } from "./wire.js";

const $ = (id) => document.getElementById(id);
const sessions = new Map();
const link = { connected: false, denied: false, ended: false, problem: "" };
const broker = { connected: true };
const display = { own: null, unshown: 0, refused: 0, unarchived: 0, problem: "", local: [] };
const traces = new Traces();
const page = {
  chosen: null, // name of the session the operator looks at
  picked: false, // the operator chose it
  paused: null, // {sessions, at, clock}: the moment that stands still
  looked: null, // the window that is looked at while paused
  withOriginal: false,
  fetching: false,
};
let drawing = false;

connect({
  link: (change) => {
    Object.assign(link, change);
    draw();
  },
  note: (note) => {
    if (note.type === "broker") Object.assign(broker, note);
    else if (note.type === "display") take(note);
    else session(note.session).hear(note);
    draw();
  },
  frame: (header, pictures) => {
    const of = session(header.session);
    of.add(header, pictures, performance.now());
    of.prune();
    draw();
  },
});
setInterval(draw, 1000); // clock and ages go on without messages
followExperiment(() => display.local.includes(page.chosen) && page.paused === null);
new ResizeObserver(draw).observe($("strip"));

function session(name) {
  if (!sessions.has(name)) sessions.set(name, new Session(name));
  return sessions.get(name);
}

/** Take the display's own word: which sessions it shows, and what is wrong with it. */
function take(note) {
  Object.assign(display, note);
  link.problem = note.problem;
  for (const [name, of] of sessions) {
    if (note.sessions.includes(name)) continue;
    of.forget();
    sessions.delete(name);
  }
}

/** Choose a session where the operator has not: the display's own, else one that runs. */
function choose() {
  const now = sessions.get(page.chosen);
  if (now && (page.picked || now.name === display.own || (now.arrived.length && !sessions.has(display.own)))) return;
  const all = [...sessions.values()];
  page.chosen = (sessions.get(display.own) ?? all.find((of) => !of.over) ?? now ?? all[0])?.name ?? null;
  page.picked = false;
}

const NOBODY = new Session("");
const seen = () => page.paused?.sessions ?? sessions;
const current = () => seen().get(page.chosen) ?? NOBODY;
/** The window whose pictures stand, of a session that is seen. */
const windowOf = (of) => (page.looked && of?.name === page.chosen ? page.looked : of?.standing);

/** Draw once a screen frame, however many messages came. */
function draw() {
  if (drawing) return;
  drawing = true;
  const paint = () => {
    drawing = false;
    if (!page.paused) choose();
    drawBar();
    if (document.body.dataset.mode === "view") drawWall(seen(), page.chosen, windowOf, broker, page.withOriginal);
    else drawDesk();
  };
  if (document.hidden) setTimeout(paint, 500);
  else requestAnimationFrame(paint);
}

/** [state, word, sentence] of a session that is seen, by default the chosen one. */
function stateNow(of = current()) {
  if (!page.paused) return of.state(link, broker, performance.now());
  const since = (sessions.get(page.chosen)?.published ?? 0) - current().published;
  const window = windowOf(current());
  const which = window ? `, picture of ${ago(page.paused.at - window.at).replace(" ago", " before")}` : "";
  return ["paused", "Paused", `Paused at ${page.paused.clock}${which}${since > 0 ? `; ${since} more since` : ""}.`];
}

function drawBar() {
  const of = current();
  const [state, word, sentence] = stateNow();
  document.body.dataset.state = $("state").dataset.state = state;
  // Read out changes of state, not every second of an age.
  $("state").setAttribute("aria-live", state === "live" || $("state").dataset.said === word ? "off" : "polite");
  $("state").dataset.said = word;
  text($("state-text"), word);
  $("state").title = sentence;
  text($("data"), of.data);
  $("data").hidden = !of.data;
  drawIdentity(of);
  $("pause").setAttribute("aria-pressed", String(page.paused !== null));
  text($("pause-text"), page.paused ? "Resume" : "Pause");
  $("pause").title = page.paused ? "Go on with what comes now (Space)" : "Stop all that moves (Space)";
  $("save").disabled = !windowOf(of)?.pictures.picture;
  $("download").disabled = page.fetching || !of.windows.length;
  $("note").disabled = !noting();
  document.title = of.data ? `${word} · ${of.data} · minddiffuser` : "minddiffuser";
}

/** Who, which session, which picture of how many, and when. */
function drawIdentity(of) {
  const show = (id, words) => {
    $(id).hidden = !words;
    text($(id), words);
  };
  const { index, of: total } = windowOf(of)?.meta ?? {};
  show("participant", of.participant);
  show("counted", Number.isFinite(index) ? `${index}${Number.isFinite(total) ? ` of ${total}` : ""}` : "");
  show("session-name", sessions.size === 1 ? of.name : "");
  $("sessions").hidden = sessions.size < 2;
  text($("unshown"), display.unshown ? `and ${display.unshown} more that find no place` : "");
  const names = [...sessions.keys()];
  if (JSON.stringify(names) !== JSON.stringify([...$("session").options].map((option) => option.value))) {
    $("session").replaceChildren(...names.map((name) => new Option(name, name)));
  }
  if (page.chosen !== null && $("session").value !== page.chosen) $("session").value = page.chosen;
  text($("clock"), page.paused?.clock ?? new Date().toLocaleTimeString("en-GB"));
}

function drawDesk() {
  const of = current();
  const window = windowOf(of);
  drawRooms(beside(seen(), page.chosen), page.chosen, windowOf, broker, (each) => stateNow(each)[1], pick);
  drawNotice(of, window);
  drawStrip(of, window, page.paused !== null, look);
  drawSignal(of);
  drawConfidence(of, window);
  drawLatency(of, window);
  drawDetails(of, window, display);
  traces.follow(display.local.includes(page.chosen) ? page.chosen : null, page.paused !== null);
}

/** One line that is always there, so that nothing moves when it has something to say. */
function drawNotice(of, window) {
  const [state, , sentence] = stateNow();
  const newest = of.newest;
  const lost = window?.meta.samples_lost;
  let notice = sentence;
  if (state === "abstained") notice = `${$("state-text").textContent}: ${newest.meta.reason ?? "confidence too low"}`;
  else if (!notice && lost) notice = `${lost} samples were lost inside this window.`;
  $("notice").dataset.state = state === "live" && notice ? "stale" : state;
  $("notice").title = notice;
  text($("notice"), notice);
}

// ---- what keys and buttons do

/** Stop all that moves, at this moment. */
function pause() {
  if (page.paused) return;
  keepPictures(true);
  const still = new Map([...sessions].map(([name, of]) => [name, of.frozen()]));
  page.paused = { sessions: still, at: performance.now(), clock: new Date().toLocaleTimeString("en-GB") };
}

function resume() {
  if (!page.paused) return;
  page.paused = page.looked = null;
  keepPictures(false);
  draw();
}

/** Look at a window, paused; at the one that is looked at: resume. */
function look(window) {
  if (page.looked?.key === window.key) return resume();
  pause();
  page.looked = current().windows.find((w) => w.key === window.key) ?? window;
  return draw();
}

/** Go to earlier and later pictures; beyond the last one is now. */
function step(by) {
  const finals = current().finals;
  if (!finals.length) return;
  const at = page.looked ? finals.findIndex((w) => w.key === page.looked.key) : finals.length - 1;
  const next = Math.max(0, at + by);
  if (next >= finals.length) resume();
  else if (next !== at || page.paused) {
    pause();
    page.looked = current().finals[next];
    draw();
  }
}

function pick(name) {
  page.chosen = name;
  page.picked = true;
  page.looked = null;
  draw();
}

/** Whether notes of the chosen session can be taken here. */
const noting = () => display.local.includes(page.chosen) && !current().over && link.connected;

bind({ page, draw, current, windowOf, noting, pick, step,
  toggle: () => {
    if (page.paused) return resume();
    pause();
    return draw();
  },
  resume });
