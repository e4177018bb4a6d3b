// Samples that wait to be played. The buffer grows instead of losing samples.
export class Ring {
  constructor(capacity = 1 << 15) {
    this.buffer = new Float32Array(capacity);
    this.first = 0;
    this.length = 0;
  }

  push(samples) {
    if (this.length + samples.length > this.buffer.length) this.grow(this.length + samples.length);
    const start = (this.first + this.length) % this.buffer.length;
    const fits = Math.min(samples.length, this.buffer.length - start);
    this.buffer.set(samples.subarray(0, fits), start);
    this.buffer.set(samples.subarray(fits), 0);
    this.length += samples.length;
  }

  // Fills `out`, with silence behind the last sample; returns how many samples there were.
  pull(out) {
    const count = Math.min(out.length, this.length);
    const fits = Math.min(count, this.buffer.length - this.first);
    out.set(this.buffer.subarray(this.first, this.first + fits));
    out.set(this.buffer.subarray(0, count - fits), fits);
    out.fill(0, count);
    this.first = (this.first + count) % this.buffer.length;
    this.length -= count;
    return count;
  }

  grow(needed) {
    const larger = new Float32Array(2 ** Math.ceil(Math.log2(needed)));
    const length = this.pull(larger.subarray(0, this.length));
    [this.buffer, this.first, this.length] = [larger, 0, length];
  }
}
