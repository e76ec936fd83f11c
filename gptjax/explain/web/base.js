'use strict';
// Everything is drawn from `data`, for the selected token, layer and head in `chosen`.

const data = JSON.parse(document.getElementById('data').textContent);
let n = data.tokens.length;
const chosen = { t: 1, s: 0, kind: 0, layer: 0, head: 0 };

// ---- numbers -------------------------------------------------------------------------------

function bytesOf(text) {
  const raw = atob(text);
  return Uint8Array.from(raw, (character) => character.charCodeAt(0));
}

function halfToNumber(h) {
  const sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// An array as the page has it: half floats, or weights from 0 to 255, of which there may be the
// lower triangles alone. Gives a function of the indices.
function unpack(packed) {
  const bytes = bytesOf(packed.data);
  if (packed.type === 'square') {
    const [, rows, columns] = packed.shape;
    return (head, t, s) => bytes[(head * rows + t) * columns + s] / 255;
  }
  if (packed.type === 'triangle') {
    const size = packed.shape[1], each = size * (size + 1) / 2;
    return (head, t, s) => s > t ? 0 : bytes[head * each + t * (t + 1) / 2 + s] / 255;
  }
  const halves = new Uint16Array(bytes.buffer), [, b, c] = packed.shape;
  return (i, j, k = 0) => halfToNumber(halves[(i * b + j) * (c || 1) + k]);
}

function percent(p) {
  if (p >= 0.0995) return (100 * p).toFixed(0) + '%';
  if (p >= 0.001) return (100 * p).toFixed(p >= 0.01 ? 1 : 2) + '%';
  return p === 0 ? '0' : p.toExponential(0);
}

const fixed = (x, digits = 2) => (x < 0 ? '−' : '') + Math.abs(x).toFixed(digits);
const range = (count) => Array.from({ length: count }, (_, i) => i);

// ---- elements ------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== 'list') element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const nameOf = (id) => data.names[id];
const shown = (id) => make('span', { className: 'shown' }, nameOf(id));
const cell = (content, number = false) => make('td', { className: number ? 'number' : '' }, content);

function table(head, rows, caption = '') {
  const header = make('tr', {}, ...head.map(([name, number]) =>
    make('th', { scope: 'col', className: number ? 'number' : '' }, name)));
  return make('table', {}, ...(caption ? [make('caption', {}, caption)] : []),
    make('thead', {}, header), make('tbody', {}, ...rows));
}

function bar(share) {
  const element = make('span', { className: share < 0 ? 'bar minus' : 'bar' });
  element.style.width = `${Math.min(6, 6 * Math.abs(share))}rem`;
  return element;
}

function colour(kind, strength) {
  return `rgba(${getComputedStyle(document.documentElement).getPropertyValue(kind)}, ${strength})`;
}

// A picture of numbers from -1 to 1, `scale` pixels for each.
function draw(canvas, rows, columns, scale, value) {
  canvas.width = columns * scale;
  canvas.height = rows * scale;
  const [much, less] = ['--much', '--less'].map((kind) =>
    getComputedStyle(document.documentElement).getPropertyValue(kind).split(',').map(Number));
  const context = canvas.getContext('2d'), image = context.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++) for (let x = 0; x < canvas.width; x++) {
    const number = value(Math.floor(y / scale), Math.floor(x / scale));
    const alpha = 255 * Math.min(1, Math.abs(number));
    image.data.set([...(number > 0 ? much : less), alpha], 4 * (y * canvas.width + x));
  }
  context.putImageData(image, 0, 0);
}
