// The full picture: the final one of each session, with its name, and nothing else.

import { drawChecklist } from "./checklist.js";
import { text } from "./facts.js";
import { describe, eventLabel, guess } from "./rooms.js";
import { put, Stage } from "./swap.js";

const $ = (id) => document.getElementById(id);
const tiles = new Map();

/** Draw a tile for each session that runs, or for each where none does. */
export function drawWall(sessions, chosen, windowOf, broker, withOriginal) {
  const running = [...sessions.values()].filter((of) => !of.over);
  const shown = running.length ? running : [...sessions.values()].filter((of) => of.name === chosen);
  for (const [name, tile] of tiles) {
    if (shown.some((of) => of.name === name)) continue;
    tile.element.remove();
    tiles.delete(name);
  }
  $("wall").style.setProperty("--columns", columns(shown.length));
  drawChecklist($("wall"), shown.length ? null : undefined, broker);
  for (const of of shown) {
    if (!tiles.has(of.name)) tiles.set(of.name, new Tile());
    tiles.get(of.name).draw(of, windowOf(of), broker, withOriginal);
  }
}

/** In how many columns square pictures are largest. */
function columns(number) {
  const side = (wide) => Math.min(innerWidth / wide, innerHeight / Math.ceil(number / wide));
  const all = Array.from({ length: Math.max(1, number) }, (_, i) => i + 1);
  return all.reduce((best, wide) => (side(wide) > side(best) ? wide : best));
}

class Tile {
  constructor() {
    this.element = document.createElement("article");
    this.element.className = "tile";
    this.element.innerHTML = `<div class="backdrop" aria-hidden="true"></div><div class="frame"><span class="empty"></span></div>
      <figure class="inset" hidden><div class="frame"></div><figcaption>Shown</figcaption></figure>
      <footer><b class="what"></b><span class="names"></span><span class="source"></span><span class="name"></span>
      <span class="sure"></span></footer>`;
    this.stage = new Stage((images, window) => this.#put(images, window));
    this.withOriginal = false;
    $("wall").append(this.element);
  }

  #part = (selector) => this.element.querySelector(selector);

  draw(of, window, broker, withOriginal) {
    Object.assign(this, { data: of.data, withOriginal });
    const frame = this.#part(":scope > .frame");
    drawChecklist(frame, window ? null : of, broker);
    text(this.#part(".source"), of.data);
    text(this.#part(".name"), [of.participant, of.name].filter(Boolean).join(" · "));
    this.stage.show(window ?? null);
    this.#part(".inset").hidden = !(withOriginal && this.#part(".inset img"));
  }

  #put(images, window) {
    const kind = window?.pictures.picture ? "picture" : "preview";
    const image = images[kind];
    const words = image ? describe(this.data, window, kind) : window ? "This picture cannot be shown" : "";
    put(this.#part(".backdrop"), image?.cloneNode(), "", false);
    put(this.#part(":scope > .frame"), image, words);
    put(this.#part(".inset .frame"), images.original, images.original ? describe(this.data, window, "original") : "", false);
    text(this.#part(".what"), !window ? "" : kind === "picture" ? "Final" : "Preview");
    text(this.#part(".names"), guess(window));
    const confidence = window?.meta.confidence;
    text(this.#part(".sure"), Number.isFinite(confidence) ? `confidence ${confidence.toFixed(2)}` : "");
    this.#part(".inset").hidden = !(this.withOriginal && images.original);
    text(this.#part(".inset figcaption"), ["Shown", eventLabel(window)].filter(Boolean).join(": "));
  }
}
