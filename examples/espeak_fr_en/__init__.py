"""A synthetic French-English speech translation corpus: a bilingual grammar and espeak-ng."""
