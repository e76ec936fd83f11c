'use strict';
// The loss curve of a model, with a point for each checkpoint, and the model's card.

const SVG = 'http://www.w3.org/2000/svg';

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function drawCurve(model, current, onPick) {
  $('card').tBodies[0].replaceChildren(
    ...Object.entries(model.card).map(([name, value]) =>
      make('tr', {}, make('th', { scope: 'row', textContent: name }), make('td', { textContent: value }))),
  );
  const points = [...model.train, ...model.val];
  const [width, height, left, bottom] = [640, 200, 45, 22];
  if (points.length < 2) {
    $('curve').replaceChildren(make('p', { textContent: 'There is no curve of this model.' }));
    return;
  }
  const last = Math.max(...points.map(([step]) => step), ...model.checkpoints, 1);
  const losses = points.map(([, loss]) => loss).filter(Number.isFinite);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const x = (step) => left + (step / last) * (width - left - 15);
  const y = (loss) => 10 + ((high - loss) / (high - low || 1)) * (height - bottom - 15);
  const line = (name, rows) =>
    svg('polyline', { class: name, points: rows.map(([step, loss]) => `${x(step)},${y(loss)}`).join(' ') });
  const label = (at, to, text, anchor) => svg('text', { x: at, y: to, 'text-anchor': anchor }, text);
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, role: 'group', 'aria-label': 'loss by step' });
  picture.append(
    line('train', model.train),
    line('val', model.val),
    label(left - 6, y(high) + 4, high.toFixed(2), 'end'),
    label(left - 6, y(low) + 4, low.toFixed(2), 'end'),
    label(left, height - 5, '0', 'middle'),
    label(width - 15, height - 5, `step ${last}`, 'end'),
  );
  const curve = model.val.length ? model.val : model.train;
  for (const step of model.checkpoints) {
    const nearest = curve.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
    const point = svg('circle', { cx: x(step), cy: y(nearest[1]), r: 6, tabindex: 0, role: 'button' });
    point.setAttribute('aria-label', `checkpoint of step ${step}`);
    point.append(svg('title', {}, `step ${step}, loss ${nearest[1].toFixed(4)}`));
    point.classList.toggle('current', step === current);
    const pick = () => onPick(step);
    point.addEventListener('click', pick);
    point.addEventListener('keydown', (event) => event.key === 'Enter' && pick());
    picture.append(point);
  }
  $('curve').replaceChildren(picture);
}
