// Microphone to pieces of 16-bit samples at the rate of the protocol.
import { Resampler } from "./resample.js";

const PIECE_SECONDS = 0.1;

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate } }) {
    super();
    this.resampler = new Resampler(Math.round(sampleRate), rate);
    this.piece = new Int16Array(Math.round(rate * PIECE_SECONDS));
    this.filled = 0;
    this.isEnded = false;
    this.port.onmessage = () => {
      this.add(this.resampler.push(new Float32Array(0), true));
      this.isEnded = true;
      this.port.postMessage({ samples: this.piece.slice(0, this.filled), isLast: true });
    };
  }

  process(inputs) {
    const samples = inputs[0][0]; // missing while nothing is connected
    if (samples && !this.isEnded) this.add(this.resampler.push(samples));
    return !this.isEnded;
  }

  add(samples) {
    for (const sample of samples) {
      this.piece[this.filled] = Math.round(Math.max(-1, Math.min(1, sample)) * 32767);
      this.filled += 1;
      if (this.filled === this.piece.length) {
        this.port.postMessage({ samples: this.piece, isLast: false });
        this.piece = new Int16Array(this.piece.length);
        this.filled = 0;
      }
    }
  }
}

registerProcessor("capture", Capture);
