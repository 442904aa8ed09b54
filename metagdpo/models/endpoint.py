"""A model behind an OpenAI-compatible server (`/chat/completions`).

Left out: streaming, tools, images, and raw start tokens (context-free sampling needs the model itself). The server gets
each request's seed; whether it keeps to it is its own affair, so the journal is what makes a rerun equal.
"""

import contextlib
import email.utils
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from typing import Any

from metagdpo.errors import ConfigError, EndpointError, ModelError
from metagdpo.models.port import Completion, Request, Sampling

LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 300.0
_RETRIED = frozenset({408, 409, 425, 429})
_SERVER_ERROR = 500
_OK = 200


class _TryAgain(Exception):  # noqa: N818  (a reason to wait, not an error that leaves this file)
    """Something that may pass; says what, and how many seconds the server wants."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Endpoint:
    """TextModel over HTTP; several questions in flight, each retried with growing waits."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout_s: float = 120.0,
        first_wait_s: float = 1.0,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.prompt_tokens = 0
        """As the server counted them, all answers together."""
        self.completion_tokens = 0
        self._api_key_env = api_key_env
        self._concurrency = concurrency
        self._retries = retries
        self._timeout_s = timeout_s
        self._first_wait_s = first_wait_s
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """Address and model name: all that can be known about a served model."""
        return f"endpoint {self.base_url} {self.model}"

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield completions as they come. The first request that fails for good stops the others after their answer.

        Raises:
            ConfigError: The environment variable with the key is not set.
            EndpointError: A request failed after all retries; everything yielded before is valid.
            ModelError: A request has raw start tokens.
        """
        import httpx
        from tqdm import tqdm

        if any(request.prefix_ids for request in requests):
            message = f"{self.identity} takes conversations only; context-free sampling needs a local model."
            raise ModelError(message)
        stop = threading.Event()
        failure: EndpointError | None = None
        with (
            httpx.Client(headers=self._headers(), timeout=self._timeout_s) as client,
            ThreadPoolExecutor(max_workers=self._concurrency) as pool,
            tqdm(total=len(requests), desc=f"asking {self.model}", unit=" completions", dynamic_ncols=True) as bar,
        ):
            futures: dict[Future[Completion], int] = {
                pool.submit(self._ask, client, request, sampling, stop): position
                for position, request in enumerate(requests)
            }
            try:
                for future in as_completed(futures):
                    try:
                        completion = future.result()
                    except CancelledError:
                        continue
                    except EndpointError as error:
                        failure = failure or error
                        stop.set()
                        for waiting in futures:
                            waiting.cancel()
                        continue
                    bar.set_postfix_str(f"{self.completion_tokens} tokens", refresh=False)
                    bar.update()
                    yield futures[future], completion
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                print(
                    f"{self.model}: {self.prompt_tokens} prompt and {self.completion_tokens} completion tokens so far",
                    file=sys.stderr,
                    flush=True,
                )
        if failure is not None:
            raise failure

    def _headers(self) -> dict[str, str]:
        if self._api_key_env is None:
            return {}
        key = os.environ.get(self._api_key_env)
        if not key:
            message = (
                f"the environment variable {self._api_key_env}, which should hold the key for {self.base_url}, is not "
                "set. Export it, or set api_key_env to null for a server without keys."
            )
            raise ConfigError(message)
        return {"Authorization": f"Bearer {key}"}

    def _ask(self, client: Any, request: Request, sampling: Sampling, stop: threading.Event) -> Completion:
        body = {
            "model": self.model,
            "messages": [message.model_dump() for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": request.seed % 2**31,  # servers differ in how large a seed they take
        }
        reason = "stopped"
        for attempt in range(self._retries + 1):
            if stop.is_set():
                break
            try:
                return self._once(client, body)
            except _TryAgain as error:
                reason = str(error)
                if attempt < self._retries:
                    stop.wait(self._wait_s(attempt) if error.wait_s is None else error.wait_s)
        message = (
            f"{self.base_url} gave no useful answer as `{self.model}` in {self._retries + 1} tries; last: {reason}. "
            "Every answer that came is kept: when the server is up again, rerun the same command and only the missing "
            "ones are asked for."
        )
        raise EndpointError(message)

    def _wait_s(self, attempt: int) -> float:
        # Jitter, so that requests that failed together do not come back together.
        return min(LONGEST_WAIT_S, self._first_wait_s * 2.0**attempt) * random.uniform(0.5, 1.5)  # noqa: S311

    def _once(self, client: Any, body: dict[str, Any]) -> Completion:
        import httpx

        try:
            reply = client.post(f"{self.base_url}/chat/completions", json=body)
        except httpx.TransportError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        status = reply.status_code
        if status in _RETRIED or status >= _SERVER_ERROR:
            raise _TryAgain(f"HTTP {status}: {reply.text[:200]!r}", _retry_after_s(reply.headers.get("retry-after")))
        if status != _OK:
            message = (
                f"{self.base_url} refuses the request for `{self.model}`: HTTP {status}: {reply.text[:300]!r}. Check "
                "base_url, model and api_key_env; every answer that came is kept."
            )
            raise EndpointError(message)
        try:
            return self._read(reply.json())
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise _TryAgain(f"an answer that is not a chat completion: {reply.text[:200]!r}") from error

    def _read(self, answer: Any) -> Completion:
        choice = answer["choices"][0]
        ended = choice.get("finish_reason") == "stop"
        text = choice["message"]["content"]
        if not isinstance(text, str):
            if ended:
                message = "an ended answer without text"
                raise TypeError(message)
            text = ""  # withheld, for example by a content filter: a cut answer
        usage = answer.get("usage") or {}
        with self._lock:
            self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
            self.completion_tokens += int(usage.get("completion_tokens") or 0)
        return Completion(text=text, finish_reason="stop" if ended else "length")


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from a Retry-After header (a number or a date), at most five minutes; None without a usable one."""
    if value is None:
        return None
    seconds = None
    with contextlib.suppress(ValueError):
        seconds = float(value)
    if seconds is None:
        with contextlib.suppress(ValueError, TypeError):
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    return None if seconds is None else min(LONGEST_RETRY_AFTER_S, max(0.0, seconds))
