"""Bodies of bounded size, and errors as answers."""

import asyncio
import traceback

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gptjax.errors import UserError
from gptjax.serve.fields import FieldError
from gptjax.serve.guard import error_response

MOST_BODY = 1_000_000  # bytes
BODY_S, ANSWER_S = 10.0, 600.0  # time limits


async def read_body(request: Request) -> bytes:
    """The body of a request, which must be JSON of a bounded size."""
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind != 'application/json':
        raise HTTPException(415, 'content-type must be application/json')
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > MOST_BODY:
                    raise HTTPException(413, f'the body has more than {MOST_BODY:,} bytes')
    except TimeoutError:
        raise HTTPException(408, f'the body took longer than {BODY_S:.0f} s') from None
    except ClientDisconnect:
        raise HTTPException(400, 'the body was cut short') from None
    return b''.join(chunks)


def as_response(error: Exception) -> Response:
    if isinstance(error, FieldError):
        code = 'model_not_found' if error.status == 404 else None
        return error_response(error.status, str(error), field=error.field, code=code)
    if isinstance(error, TimeoutError):
        return error_response(503, f'the answer took longer than {ANSWER_S:.0f} s')
    if isinstance(error, UserError):
        return error_response(400, str(error))
    traceback.print_exception(error)
    return error_response(500, 'the model failed; the log of the server has the reason')


async def failure(_: Request, error: Exception) -> Response:
    return as_response(error)


async def http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {name.replace('-', '_'): value for name, value in (error.headers or {}).items()}
    return error_response(error.status_code, error.detail, **headers)
