// Words as they come, in paragraphs.

const PAUSE_MS = 3000; // of the source without a word, after which captions go on in a new paragraph
const MOST_PARAGRAPHS = 200;

export class Captions {
  constructor(box) {
    this.box = box;
    this.box.replaceChildren();
    this.last = Infinity;
    this.isBroken = true;
  }

  // Adds whole words. The first word after a pause was held back in it, so it ends the paragraph before.
  add(text, ms) {
    const follows = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    if (ms - this.last > PAUSE_MS) {
      const [first, ...others] = text.trim().split(" ");
      this.append(` ${first}`);
      this.isBroken = true;
      if (others.length) this.append(others.join(" "));
    } else {
      this.append(text);
    }
    this.last = ms;
    if (follows) this.box.scrollTop = this.box.scrollHeight;
  }

  append(text) {
    if (this.isBroken) {
      this.box.append(document.createElement("p"));
      if (this.box.children.length > MOST_PARAGRAPHS) this.box.firstChild.remove();
      this.isBroken = false;
    }
    const words = document.createElement("span");
    words.textContent = text;
    this.box.lastChild.append(words);
  }
}
