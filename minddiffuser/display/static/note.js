// The note button: what the experimenter notes becomes a marker on LSL and a line in the archive.

import { postNote } from "./wire.js";

const $ = (id) => document.getElementById(id);

/** Ask for a note of a session and send it; `say(words)` tells what became of it. */
export function openNote(session, say) {
  const pressed = performance.now();
  const input = $("note-text");
  input.value = "";
  $("note-cancel").onclick = () => $("noting").close();
  $("noting-form").onsubmit = async () => {
    const words = input.value.trim();
    if (!words) return;
    try {
      await postNote(session, words, (performance.now() - pressed) / 1000);
      say(`Noted: ${words}`);
    } catch (error) {
      say(`The note was not taken: ${error.message}`);
    }
  };
  $("noting").showModal();
  input.focus();
}
