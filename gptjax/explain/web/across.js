// ---- across training -------------------------------------------------------------------------

function showAcross() {
  const moments = data.across;
  $('across').hidden = !moments;
  if (!moments) return;
  const { step, loss, probability_T: probabilities, rank_T: ranks, ids_TK: ids, probs_TK: probs } = moments[Number($('across-step').value)];
  $('across-words').textContent = `Step ${step.toLocaleString('en')}: the loss of this text is ${fixed(loss, 4)} nats a token. ` +
    `“${nameOf(data.tokens[chosen.t])}” has probability ${percent(probabilities[chosen.t - 1])}, rank ${ranks[chosen.t - 1]}.`;
  $('across-text').replaceChildren(...data.tokens.flatMap((id, t) => {
    const token = make('span', { className: 'token' }, nameOf(id));
    if (t) token.style.backgroundColor = colour('--much', Math.min(0.6, -Math.log2(probabilities[t - 1]) / 16));
    if (t === chosen.t) token.style.outline = '2px solid var(--mark)';
    return nameOf(id).endsWith('↵') ? [token, make('br')] : [token];
  }));
  const rows = ids[chosen.t - 1].map((id, i) => make('tr', { className: id === data.tokens[chosen.t] ? 'followed' : '' },
    cell(String(i + 1), true), cell(shown(id)), cell(percent(probs[chosen.t - 1][i]), true), cell(bar(probs[chosen.t - 1][i]))));
  $('across-table').replaceChildren(table([['rank', true], ['token'], ['probability', true], ['']], rows));
  const every = moments.map((moment) => make('tr', { className: moment.step === step ? 'followed' : '' },
    cell(moment.step.toLocaleString('en'), true), cell(fixed(moment.loss, 4), true),
    cell(percent(moment.probability_T[chosen.t - 1]), true), cell(String(moment.rank_T[chosen.t - 1]), true)));
  $('across-steps').replaceChildren(table([['step', true], ['loss of the text', true], ['probability of the token', true], ['rank', true]], every));
}

function startAcross() {
  $('across-step').max = String(data.across.length - 1);
  $('across-step').value = $('across-step').max;
  $('across-step').addEventListener('input', showAcross);
}
