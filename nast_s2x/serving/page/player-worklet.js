// Plays what arrives without gaps: it starts with a little in store, and counts the times that the store was empty.
import { Ring } from "./ring.js";

const STORE_SECONDS = 0.15;
const REPORT_SECONDS = 0.1;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.ring = new Ring();
    this.isPlaying = this.isEnded = false;
    this.played = this.gaps = this.unreported = 0;
    this.port.onmessage = ({ data: { samples, isLast } }) => {
      if (samples) this.ring.push(samples);
      this.isEnded ||= Boolean(isLast);
    };
  }

  process(inputs, outputs) {
    const out = outputs[0][0];
    const enough = this.isEnded ? this.ring.length > 0 : this.ring.length >= STORE_SECONDS * sampleRate;
    this.isPlaying ||= enough;
    if (this.isPlaying) {
      const count = this.ring.pull(out);
      this.played += count;
      if (count < out.length) {
        this.isPlaying = false;
        if (!this.isEnded) this.gaps += 1;
      }
    }
    const isDone = this.isEnded && !this.ring.length;
    this.unreported += out.length;
    if (isDone || this.unreported >= REPORT_SECONDS * sampleRate) {
      this.unreported = 0;
      this.port.postMessage({ seconds: this.played / sampleRate, gaps: this.gaps, isDone });
    }
    return !isDone;
  }
}

registerProcessor("player", Player);
