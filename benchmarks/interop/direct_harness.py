"""A verifiers harness for `verifiers_env.py`: one request to the model, in this process. verifiers' own start a program through `uv`."""

import httpx
import verifiers.v1 as vf


class DirectHarnessConfig(vf.HarnessConfig):
    """No knobs."""


class DirectHarness(vf.Harness[DirectHarnessConfig]):
    """Every model call goes through the interception server, as verifiers asks of a harness that runs in-process."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        system, prompt = self.resolve_prompt(data)
        messages = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": prompt}]
        async with httpx.AsyncClient(timeout=60) as client:
            body = {"model": ctx.model, "messages": messages}
            answer = await client.post(f"{endpoint}/chat/completions", json=body, headers={"Authorization": f"Bearer {secret}"})
        answer.raise_for_status()
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


__all__ = ["DirectHarness"]
