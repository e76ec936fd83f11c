// ---- start ---------------------------------------------------------------------------------

showText();
if (data.source) showSource();
if (data.attention) startHeads();
if (data.parts) {
  data.parts.unpacked = unpack(data.parts.logits);
  for (const id of ['part-token', 'part-rival']) $(id).addEventListener('change', showParts);
}
document.addEventListener('keydown', onKey);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
select(Math.min(n - 1, Math.max(1, data.n_prompt)));
redraw();
