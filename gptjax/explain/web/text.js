// ---- the texts ------------------------------------------------------------------------------

function surprise(t) {
  return t === 0 ? 0 : -Math.log2(data.outcomes[t - 1].probability);
}

function showText() {
  $('text').replaceChildren();
  for (const t of range(n)) {
    const id = data.tokens[t];
    const title = t === 0 ? 'the first token: nothing comes before it'
      : `${percent(data.outcomes[t - 1].probability)}, rank ${data.outcomes[t - 1].rank}`;
    const button = make('button', {
      className: t < data.n_prompt ? 'token given' : 'token', title, type: 'button',
      disabled: t === 0, 'data-t': t, 'aria-pressed': 'false',
      'aria-label': `token ${t}: ${nameOf(id)}, ${title}`,
    }, nameOf(id));
    button.style.backgroundColor = colour('--much', Math.min(0.6, surprise(t) / 16));
    button.addEventListener('click', () => select(t));
    for (const event of ['mouseenter', 'focus']) button.addEventListener(event, () => showLinks(t));
    for (const event of ['mouseleave', 'blur']) button.addEventListener(event, () => showLinks(-1));
    $('text').append(button);
    if (nameOf(id).endsWith('↵')) $('text').append(make('br'));
  }
}

function select(t) {
  chosen.t = Math.max(1, Math.min(n - 1, t));
  press($('text'), chosen.t);
  showAll();
}

// Marks one token of a strip; it is the strip's only stop for the tab key, arrows do the rest.
function press(strip, place) {
  for (const button of strip.querySelectorAll('button')) {
    const pressed = Number(button.dataset.t) === place;
    button.setAttribute('aria-pressed', pressed);
    button.tabIndex = pressed ? 0 : -1;
    if (pressed) button.scrollIntoView({ block: 'nearest' });
  }
}

// The source of a translation: its tokens choose the rows of the encoder's pictures.
function showSource() {
  data.source.forEach((name, s) => {
    const button = make('button', { className: 'token', type: 'button', 'data-t': s,
      'aria-pressed': 'false', 'aria-label': `source token ${s}: ${name}` }, name);
    button.addEventListener('click', () => { chosen.s = s; press($('source'), s); showHead(); showWalk(); });
    $('source').append(button);
  });
  press($('source'), chosen.s);
}

function onKey(event) {
  if (event.target.matches('select, input, textarea') || event.altKey || event.ctrlKey || event.metaKey) return;
  const back = $('text').dir === 'rtl' ? 'ArrowRight' : 'ArrowLeft';
  const next = back === 'ArrowLeft' ? 'ArrowRight' : 'ArrowLeft';
  if (event.key !== back && event.key !== next) return;
  event.preventDefault();
  select(chosen.t + (event.key === next ? 1 : -1));
  if (event.target.matches('.token')) $('text').querySelector(`[data-t="${chosen.t}"]`).focus();
}

// ---- what was expected ---------------------------------------------------------------------

function showPrediction() {
  const { t } = chosen, expected = data.predictions[t - 1], outcome = data.outcomes[t - 1];
  const words = `After ${t} token${t > 1 ? 's' : ''} came “${nameOf(outcome.id)}”: probability ` +
    `${percent(outcome.probability)}, rank ${outcome.rank}, a surprise of ${fixed(surprise(t))} bits. ` +
    `The model was unsure by ${fixed(expected.entropy)} bits (entropy).`;
  const cuts = Object.entries(expected.removed).map(([rule, p]) => `${rule} removes ${percent(p)}`);
  const rules = Object.entries(data.rules_shown).map(([rule, value]) => `${rule}=${value}`);
  $('prediction-words').textContent = words + ` Sampling rules: ${rules.join(', ') || 'none'}.` +
    (cuts.length ? ` Here ${cuts.join(', ')} of the probability.` : '');
  const rows = expected.ids.map((id, i) => {
    const rule = expected.removed_by[i];
    const row = make('tr', {}, cell(String(i + 1), true), cell(shown(id)),
      cell(percent(expected.probabilities[i]), true), cell(bar(expected.probabilities[i])),
      cell(percent(expected.sampled[i]), true), make('td', { className: 'rule' }, rule));
    row.className = (id === outcome.id ? 'followed ' : '') + (rule ? 'removed' : '');
    return row;
  });
  $('prediction-table').replaceChildren(table(
    [['rank', true], ['token'], ['probability', true], [''], ['after the rules', true], ['removed by']], rows));
}
