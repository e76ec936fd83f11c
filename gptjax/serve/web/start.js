'use strict';
// Joins the parts.

const past = []; // Texts that Undo goes back to.
let models = [];

// A model of a name such as char or char@500, and in which column it is.
function modelOf(name, place) {
  const base = models.find((model) => name === model.name || name.startsWith(`${model.name}@`));
  const step = name === base.name ? base.step : Number(name.slice(base.name.length + 1));
  return { name, base, step, place, scores: base.task === 'language_model' };
}

function remember() {
  if (past.at(-1) !== $('prompt').value) past.push($('prompt').value);
  $('undo').disabled = false;
}

let latest = 0; // The attempt whose end the buttons show: one may begin within another.

async function attempt(work) {
  const mine = ++latest;
  $('error').textContent = '';
  $('go').disabled = true;
  $('stop').disabled = false;
  try {
    await work();
  } catch (error) {
    if (error.name !== 'AbortError') $('error').textContent = error.message;
  }
  if (mine !== latest) return;
  $('go').disabled = false;
  $('stop').disabled = true;
}

function generate() {
  if (!$('keep').checked) $('seed').value = Math.floor(Math.random() * 2 ** 31);
  settings.save();
  const prompt = $('prompt').value;
  const chosen = [$('model').value, $('other').value].filter(Boolean).map(modelOf);
  const body = { ...settings.body(), prompt, logprobs: 10 };
  return attempt(() => columns.generate(body, chosen, prompt, (before, text) => go(prompt + before, text)));
}

// Goes on from a text with another token.
function go(before, text) {
  if (text.startsWith('bytes:')) {
    $('error').textContent = 'A part of a character cannot be put into the text.';
    return;
  }
  remember();
  $('prompt').value = before + text;
  generate();
}

function score() {
  settings.save();
  const model = modelOf($('model').value, 0);
  return attempt(() => columns.score(model, $('prompt').value, go));
}

function explain() {
  const asked = new URLSearchParams({ model: $('model').value, text: $('prompt').value });
  open(`/explain?${asked}`, '_blank', 'noopener');
}

function showModel() {
  const model = modelOf($('model').value, 0);
  drawCurve(model.base, model.step, (step) => {
    $('model').value = `${model.base.name}@${step}`;
    showModel();
    settings.save();
  });
  $('score').disabled = !model.scores;
  $('asked').textContent = model.base.task === 'translation' ? 'Line to translate' : 'Text to continue';
}

async function start() {
  const found = await (await call('/playground')).json();
  models = found.models;
  for (const { name, checkpoints } of models) {
    for (const value of [name, ...checkpoints.map((step) => `${name}@${step}`)]) {
      $('model').append(make('option', { value, textContent: value }));
      $('other').append(make('option', { value, textContent: value }));
    }
  }
  settings.build(found.controls);
  settings.load();
  showModel();
  $('explain').hidden = Boolean(token); // A page of its own is opened without the token.
  $('status').hidden = true;
  $('main').hidden = false;
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault();
  remember();
  generate();
});
$('stop').addEventListener('click', () => columns.stop());
$('undo').addEventListener('click', () => {
  $('prompt').value = past.pop() ?? '';
  $('undo').disabled = !past.length;
  settings.save();
});
$('score').addEventListener('click', score);
$('explain').addEventListener('click', explain);
$('model').addEventListener('change', () => { showModel(); settings.save(); });
for (const id of ['form', 'controls']) $(id).addEventListener('change', () => settings.save());
document.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.ctrlKey) $('form').requestSubmit();
  if (event.key === 'Escape') columns.stop();
});
start().catch((error) => { $('status').textContent = error.message; });
