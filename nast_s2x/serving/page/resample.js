// Change of the sample rate of a stream, by a windowed sinc (band-limited interpolation).

const CROSSINGS = 32; // zero crossings of the sinc on each side
const PHASES = 512; // points of the kernel per input sample; linear interpolation between them
const BETA = 9; // of the Kaiser window: about 90 dB of attenuation
const EDGE = 0.94; // cut-off as a part of the lower of both Nyquist frequencies

function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function kernel(half, cutoff) {
  const table = new Float64Array(half * PHASES + 2);
  for (let place = 0; place <= half * PHASES; place += 1) {
    const distance = place / PHASES;
    const angle = Math.PI * cutoff * distance;
    const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - (distance / half) ** 2))) / bessel(BETA);
    table[place] = cutoff * window * (place ? Math.sin(angle) / angle : 1);
  }
  return table;
}

function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

// Output sample n is the input at time n / to: no delay. Any cut into pushes gives the same samples.
export class Resampler {
  constructor(from, to) {
    const common = divisor(from, to);
    [this.step, this.parts] = [from / common, to / common];
    const cutoff = EDGE * Math.min(1, to / from);
    this.half = Math.ceil(CROSSINGS / cutoff);
    this.table = kernel(this.half, cutoff);
    this.held = new Float32Array(this.half); // zeros before the beginning
    this.first = -this.half; // index of the first held sample
    this.received = 0;
    this.whole = 0; // the next output sample is at input sample whole + part / parts
    this.part = 0;
  }

  push(samples, last = false) {
    if (this.step === this.parts) return Float32Array.from(samples);
    const joined = new Float32Array(this.held.length + samples.length + (last ? this.half : 0));
    joined.set(this.held);
    joined.set(samples, this.held.length);
    this.received += samples.length;
    const end = last ? this.received : this.received - this.half; // the next output must lie before it
    const out = new Float32Array(Math.max(0, Math.ceil(((end - this.whole) * this.parts - this.part) / this.step)));
    for (let n = 0; n < out.length; n += 1) {
      out[n] = this.at(joined, this.whole - this.first, this.part / this.parts);
      this.part += this.step;
      this.whole += Math.floor(this.part / this.parts);
      this.part %= this.parts;
    }
    const keep = Math.max(0, this.whole - this.half + 1 - this.first);
    this.held = joined.slice(keep);
    this.first += keep;
    return out;
  }

  at(samples, place, fraction) {
    let sum = 0;
    for (let j = 0; j < this.half; j += 1) {
      sum += samples[place - j] * this.weight(j + fraction);
      sum += samples[place + 1 + j] * this.weight(j + 1 - fraction);
    }
    return sum;
  }

  weight(distance) {
    const place = distance * PHASES;
    const low = Math.floor(place);
    return this.table[low] + (place - low) * (this.table[low + 1] - this.table[low]);
  }
}
