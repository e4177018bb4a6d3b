// Stops a sound when another one starts, and moves a line over the timeline. The page works without this script.
"use strict";
(() => {
  const sounds = document.querySelectorAll("audio");
  for (const sound of sounds) {
    sound.addEventListener("play", () => {
      for (const other of sounds) if (other !== sound) other.pause();
    });
  }
  for (const sound of document.querySelectorAll("audio.follows")) {
    const timeline = sound.closest(".panel").querySelector(".timeline");
    const line = timeline.querySelector(".playhead");
    const total = Number(timeline.dataset.totalMs);
    const margin = Number(timeline.dataset.margin);
    const width = timeline.viewBox.baseVal.width - 2 * margin;
    const move = () => {
      const x = margin + width * Math.min(1, (1000 * sound.currentTime) / total);
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.removeAttribute("hidden");
      if (!sound.paused) requestAnimationFrame(move);
    };
    sound.addEventListener("play", move);
    sound.addEventListener("seeked", move);
  }
  // Stop the sounds that a change of chunk size hides.
  for (const choice of document.querySelectorAll("input[name=chunk]")) {
    choice.addEventListener("change", () => sounds.forEach((sound) => sound.offsetParent === null && sound.pause()));
  }
})();
