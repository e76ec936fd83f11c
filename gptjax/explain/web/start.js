// ---- start ---------------------------------------------------------------------------------

// Also after another text took the place of the first.
function startText() {
  $('text').dir = data.direction;
  showText();
  if (data.attention && data.heads) showHeadsTable();
  select(Math.min(n - 1, Math.max(1, data.n_prompt)));
  redraw();
}

if (data.source) showSource();
if (data.across) startAcross();
if (data.attention) startHeads();
if (data.parts) {
  data.parts.unpacked = unpack(data.parts.logits);
  for (const id of ['part-token', 'part-rival']) $(id).addEventListener('change', showParts);
}
document.addEventListener('keydown', onKey);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
if (live) {
  $('own-button').addEventListener('click', onOwn);
  $('own-text').addEventListener('keydown', (event) => { if (event.key === 'Enter' && event.ctrlKey) onOwn(); });
}
startText();
