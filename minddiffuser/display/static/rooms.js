// The operator's pictures: a room for each session, in which the three cards change in step.

import { milliseconds, text } from "./facts.js";
import { STEPS, steps } from "./charts.js";
import { put, Stage } from "./swap.js";
import { drawChecklist } from "./checklist.js";

const $ = (id) => document.getElementById(id);
const SIDE_BY_SIDE = 4;
export const CARDS = [["original", "Shown"], ["retrieved", "Retrieved"], ["preview", "Preview"], ["picture", "Final"]];
const rooms = new Map();

/** The label of what was shown, '' where there was no event. */
export function eventLabel(window) {
  const event = window?.meta.event;
  return (typeof event === "object" ? event?.label : event) ?? "";
}

/** What the final picture looks like to the models: a guess, said as one; '' where they say nothing. */
export function guess(window) {
  const names = (Array.isArray(window?.meta.names) ? window.meta.names : []).filter((name) => typeof name === "string");
  return names.length ? `guess: ${names.slice(0, 3).join(", ")}` : "";
}

/** What was retrieved from a bank of pictures, and of how many: found, not made. */
export function retrieved(window) {
  const { likeliest, pictures } = window?.meta.retrieved ?? {};
  const [first] = Array.isArray(likeliest) ? likeliest : [];
  return first ? `${first.name} ${Math.round(100 * first.probability)} %, one of ${pictures}` : "";
}

/** Words for a picture, for those who do not see it. */
export function describe(data, window, kind) {
  const label = eventLabel(window);
  const names = { original: "Picture shown", retrieved: "Picture retrieved, not made,", preview: "Preview", picture: "Final picture" };
  return `${names[kind]}${label ? ` for ${label}` : ""}${kind !== "original" && data ? `, from ${data}` : ""}`;
}

/** The sessions to show: the chosen one, and beside it those that run. */
export function beside(sessions, chosen) {
  const others = [...sessions.values()].filter((of) => of.name !== chosen && !of.over && of.windows.length);
  const own = sessions.get(chosen);
  const shown = [...(own ? [own] : []), ...others].slice(0, SIDE_BY_SIDE);
  return shown.sort((a, b) => a.name.localeCompare(b.name));
}

/** Draw a room for each of some sessions; `pick(name)` is called where one is clicked. */
export function drawRooms(shown, chosen, windowOf, broker, wordOf, pick) {
  const names = shown.length ? shown.map((of) => of.name) : [""];
  for (const [name, room] of rooms) {
    if (names.includes(name)) continue;
    room.element.remove();
    rooms.delete(name);
  }
  for (const name of names) if (!rooms.has(name)) rooms.set(name, new Room(name, pick));
  const elements = names.map((name) => rooms.get(name).element);
  if (elements.some((element, i) => $("rooms").children[i] !== element)) $("rooms").replaceChildren(...elements);
  $("rooms").dataset.several = String(names.length > 1);
  $("rooms").style.setProperty("--rows", String(Math.ceil(names.length / (names.length > 2 ? 2 : 1))));
  $("rooms").style.setProperty("--columns", names.length > 2 ? "2" : "1");
  names.forEach((name, i) => rooms.get(name).draw(shown[i], windowOf(shown[i]), broker, wordOf, name === chosen));
}

class Room {
  constructor(name, pick) {
    this.element = document.createElement("article");
    this.element.className = "room";
    this.title = document.createElement("button");
    this.title.className = "title";
    this.title.title = "Look at this session's signal and figures";
    this.title.onclick = () => pick(name);
    this.cards = Object.fromEntries(CARDS.map(([kind, title]) => [kind, makeCard(kind, title)]));
    this.element.append(this.title, ...Object.values(this.cards));
    this.stage = new Stage((images, window) => this.#put(images, window));
    this.data = "";
  }

  draw(of, window, broker, wordOf, chosen) {
    this.data = of?.data ?? "";
    text(this.title, of ? [of.name, of.data, wordOf(of)].filter(Boolean).join(" · ") : "");
    this.title.setAttribute("aria-pressed", String(chosen));
    const standing = window ?? null;
    this.element.classList.toggle("waits", !standing);
    drawChecklist(this.cards.picture.querySelector(".frame"), standing ? null : of, broker);
    this.stage.show(standing);
  }

  /** Put pictures and what is said of them, in one step. */
  #put(images, window) {
    const missing = { original: "not known", retrieved: "", preview: "came before this page", picture: "coming" };
    for (const [kind] of CARDS) {
      const broken = window?.pictures[kind] && !images[kind] ? "This picture cannot be shown" : null;
      const words = images[kind] ? describe(this.data, window, kind) : broken ?? (window ? missing[kind] : "");
      put(this.cards[kind].querySelector(".frame"), images[kind], words, kind !== "original");
      this.cards[kind].dataset.window = window?.id ?? "";
    }
    this.element.classList.toggle("retrieves", Boolean(images.retrieved));
    const took = window ? steps(window.meta) : [];
    const about = (kind, line, under) => {
      text(this.cards[kind].querySelector(".took"), line);
      text(this.cards[kind].querySelector(".about"), under);
      this.cards[kind].querySelector(".about").title = under;
    };
    about("original", "", eventLabel(window) || window?.id || "");
    about("retrieved", "", retrieved(window));
    about("preview", window?.pictures.preview ? milliseconds(until(took, "stage1")) : "", "what it is: stage 1");
    const guessed = guess(window);
    about("picture", window?.pictures.picture ? milliseconds(until(took, "stage2")) : "", guessed || "where it is, too: stage 2");
  }
}

/** Milliseconds from the last sample to the end of a step; null where a time is missing. */
export function until(took, step) {
  const upTo = took.slice(0, STEPS.findIndex(([key]) => key === step) + 1);
  return upTo.length && upTo.every((v) => v !== null) ? upTo.reduce((a, b) => a + b, 0) : null;
}

function makeCard(kind, title) {
  const card = document.createElement("figure");
  card.className = "slot";
  card.dataset.kind = kind;
  card.innerHTML = `<div class="frame"><span class="empty"></span></div>
    <figcaption><h2></h2><span class="took" title="From the last sample to this picture"></span><p class="about"></p></figcaption>`;
  card.querySelector("h2").textContent = title;
  return card;
}
