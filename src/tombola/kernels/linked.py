"""A compiler for functions that are only called by other compiled functions.

numba optimises every function, translates it to machine code, and writes wrappers for calls from Python, before it is
linked into its callers, which do the same with all of it again: with six levels of calls, six times. Here a function
is translated to LLVM's instructions once, and optimised with the function that Python calls.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class LinkedLibrary(JITCodeLibrary):  # type: ignore[misc] # numba is not typed
    """Code for linking only: neither optimised nor executable."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:  # noqa: ARG002 - the signature of numba
        return 0

    @property
    def codegen(self) -> LinkedLibrary:
        return self

    def set_env(self, name: str, env: Any) -> None:
        """The environment is for Python's objects, which functions that release the interpreter's lock do not use."""


@register_pass(mutates_CFG=True, analysis_only=False)
class _LinkedLowering(NativeLowering):  # type: ignore[misc] # numba is not typed
    _name = "linked_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return bool(super().run_pass(state))


class LinkedCompiler(Compiler):  # type: ignore[misc] # numba is not typed
    """numba's compiler up to LLVM's instructions."""

    def define_pipelines(self) -> list[Any]:
        pipelines: list[Any] = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (_LinkedLowering if each is NativeLowering else each, about) for each, about in pipeline.passes
            ]
            pipeline._finalized = False
            pipeline.finalize()
        return pipelines
