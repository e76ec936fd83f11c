'use strict';
// What is asked of the server.

const $ = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

// The token of servers that need one is the fragment's #token=..., which never leaves the browser.
// It is not kept in the address, which may be sent to others.
const given = new URLSearchParams(location.hash.slice(1)).get('token');
if (given) sessionStorage.setItem('token', given);
const token = sessionStorage.getItem('token') || '';

async function call(path, body, signal) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  if (body) headers['content-type'] = 'application/json';
  const method = body ? 'POST' : 'GET';
  const answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(await reason(answer));
  return answer;
}

async function reason(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered with status ${answer.status}`;
  }
}

// Calls `take` with each object of a stream of completions.
async function stream(body, signal, take) {
  const answer = await call('/v1/completions', { ...body, stream: true }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, '');
      if (data === '[DONE]') return;
      const found = JSON.parse(data);
      if (found.error) throw new Error(found.error.message);
      take(found);
    }
  }
}
