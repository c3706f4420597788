// Keys and buttons.

import { openNote } from "./note.js";
import { composite } from "./save.js";
import { text } from "./facts.js";
import { fetchSession } from "./wire.js";

const $ = (id) => document.getElementById(id);

/** Say something that passes. */
export function say(words) {
  text($("said"), words);
  $("said").hidden = false;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").hidden = true; }, 5000);
}

function download(name, blob) {
  const anchor = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(blob) });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}

/** Make keys and buttons do what `app` can. */
export function bind(app) {
  const { page } = app;

  const setMode = (mode) => {
    document.body.dataset.mode = mode;
    $("mode").setAttribute("aria-pressed", String(mode === "view"));
    const query = new URLSearchParams(location.search);
    query.set("mode", mode);
    history.replaceState(null, "", `?${query}${location.hash}`);
    app.draw();
  };

  const save = async () => {
    const window = app.windowOf(app.current());
    if (!window?.pictures.picture) return;
    const name = `${window.id.replace(/[^A-Za-z0-9_-]+/g, "_").slice(0, 80)}.png`;
    try {
      download(name, await composite(app.current(), window));
      say(`Saved as ${name}`);
    } catch (error) {
      say(`The picture could not be saved: ${error.message}`);
    }
  };

  const saveSession = async () => {
    const { name, windows } = app.current();
    if (page.fetching || !windows.length) return;
    page.fetching = true;
    app.draw();
    try {
      download(`${name}.zip`, await fetchSession(name));
      say(`Saved as ${name}.zip`);
    } catch (error) {
      say(`The session could not be downloaded: ${error.message}`);
    } finally {
      page.fetching = false;
      app.draw();
    }
  };

  const setTab = () => {
    const signal = document.body.dataset.tab !== "signal";
    document.body.dataset.tab = signal ? "signal" : "pictures";
    $("tab").setAttribute("aria-pressed", String(signal));
    app.draw();
  };

  const keys = {
    v: () => setMode(document.body.dataset.mode === "view" ? "operate" : "view"),
    " ": app.toggle,
    n: () => app.noting() && openNote(page.chosen, say),
    s: save,
    d: saveSession,
    o: () => { page.withOriginal = !page.withOriginal; app.draw(); },
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
    "?": () => $("keys").showModal(),
    ArrowLeft: () => app.step(-1),
    ArrowRight: () => app.step(1),
    Escape: () => (document.body.dataset.mode === "view" ? setMode("operate") : app.resume()),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (!(event.target instanceof Element)) return;
    if (event.target.matches("select, input") || (event.key === " " && event.target.matches("button, summary"))) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  for (const [id, key] of [["mode", "v"], ["pause", " "], ["note", "n"], ["save", "s"], ["download", "d"], ["help", "?"]]) $(id).onclick = keys[key];
  $("tab").onclick = setTab;
  $("session").onchange = ({ target }) => app.pick(target.value);

  let quiet;
  const stir = () => { // in the full picture the bar leaves with the pointer
    document.body.classList.remove("quiet");
    clearTimeout(quiet);
    quiet = setTimeout(() => document.body.classList.add("quiet"), 3000);
  };
  for (const type of ["pointermove", "keydown", "focusin"]) document.addEventListener(type, stir);
  stir();
  if (new URLSearchParams(location.search).get("mode") === "view") setMode("view");
}
