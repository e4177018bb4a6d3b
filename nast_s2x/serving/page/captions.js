// Text as it comes, in paragraphs.

const PAUSE_MS = 3000; // of the source without a word, after which captions go on in a new paragraph
const MOST_PARAGRAPHS = 200;
// What a stream holds back until more comes: a word, in some scripts without spaces the last character. Chinese and
// Japanese text is not held back. The same rule as nast_s2x/writing.py.
const EAST = "\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Bopomofo}";
const SOUTH_EAST = "\\p{sc=Thai}\\p{sc=Lao}\\p{sc=Khmer}\\p{sc=Myanmar}\\p{sc=Tibetan}";
const HELD_BACK = new RegExp(`^\\s?(?:[${SOUTH_EAST}][\\p{M}\\u0e33\\u0eb3]*|[^\\s${EAST}${SOUTH_EAST}]*)`, "u");

export class Captions {
  constructor(box) {
    this.box = box;
    this.box.replaceChildren();
    this.last = Infinity;
    this.isBroken = true;
  }

  // Adds text, with the space before it. What was held back in a pause ends the paragraph before.
  add(text, ms) {
    const follows = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 40;
    if (ms - this.last > PAUSE_MS) {
      const [held] = text.match(HELD_BACK);
      const rest = text.slice(held.length).trim();
      if (held.trim()) this.append(held);
      this.isBroken = true;
      if (rest) this.append(rest);
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
