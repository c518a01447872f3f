"""Asks a server that speaks the OpenAI protocol: vLLM serve, SGLang, llama.cpp, hosted models.

The key comes from the environment alone and stands in no plan, log or error. Where the server is,
how fast it may be asked and what it may cost are facts of the machine: they move no key. Answers of
a server may change without notice; `adapt lock` cannot pin what is behind a URL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from engine.backends import Backend, ModelFiles, Session
from engine.plan.stage import Machine
from engine.plugin import AtLeast, Between, Neutral

HOSTED = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """Which server, how it is asked, and what it may cost."""

    served_model: Annotated[
        str | None, "The model's name on the server; null: the model as the recipe names it."
    ] = None
    base_url: Annotated[
        str | None,
        Neutral(),
        "Address up to /v1; null: OPENAI_BASE_URL, and without that the hosted service.",
    ] = None
    api_key_env: Annotated[str, Neutral(), "Variable of the environment that holds the key."] = (
        "OPENAI_API_KEY"
    )
    tokenizer: Annotated[
        str | None,
        "Folder or hub id with the model's tokenizer and chat template; needed where the model is "
        "to write the user's turn itself (a tuned synthesizer), which only vLLM's server can.",
    ] = None
    max_concurrency: Annotated[int, AtLeast(1), Neutral(), "Most requests under way at once."] = 32
    timeout_s: Annotated[float, AtLeast(0.01), Neutral(), "Longest wait for one answer."] = 300.0
    max_retries: Annotated[int, AtLeast(0), Neutral(), "Times a request is tried again."] = 6
    max_total_tokens: Annotated[
        int | None,
        AtLeast(1),
        Neutral(),
        "Stop a stage that has read and written so many tokens since it was last started.",
    ] = None
    max_cost: Annotated[
        float | None,
        AtLeast(0),
        Neutral(),
        "Stop a stage that has spent this much since it was last started, by the two prices.",
    ] = None
    price_in: Annotated[float, AtLeast(0), Neutral(), "Price of a million tokens read."] = 0.0
    price_out: Annotated[float, AtLeast(0), Neutral(), "Price of a million tokens written."] = 0.0
    top_logprobs: Annotated[
        int, Between(1, 20), Neutral(), "Likeliest tokens the server tells, when it is scored."
    ] = 20


def open_session(files: ModelFiles, params: Params, machine: Machine) -> Session:
    """Reach the server. Raise StageError if it does not have the model, or refuses the key."""
    from engine.backends._openai import OpenAiSession, Server

    url = params.base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED
    name = files.adapter or params.served_model or files.path
    kit = None
    if params.tokenizer is not None:
        from engine.models._loading import open_kit

        kit = open_kit(params.tokenizer, files.revision, files.trust_remote_code)
    server = Server(url.rstrip("/"), name, os.environ.get(params.api_key_env) or None)
    session = OpenAiSession(server, params, kit)
    try:
        session.check(plain_name=(params.served_model or files.path) if files.adapter else None)
    except BaseException:
        session.close()
        raise
    return session


PLUGIN = Backend(version=1, params=Params, open=open_session, is_continuous=True)
