"""How embeddings travel in fewer bytes; docs/upload.md has the figures.

| codec | bytes a value | needs numbers | what it is |
|---|---|---|---|
| int8 | 1 | no | a step a row and level, the row's largest value / 127 |
| int8c | 1 | yes | the same, but it first divides loud channels by their size |
| int4 | 1/2 | yes | a step of least error a row and level |
| ecq | about 3/8 | yes | steps of half the row's rms, entropy-coded |
| klt | by checkpoint | its own | a transform learned with the language model's gradients, entropy-coded |
"""
