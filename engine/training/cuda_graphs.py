"""Forward and backward passes as CUDA graphs: recorded once per shape of their inputs, then replayed as one launch.

A step of bert-base starts over a thousand kernels. Where starting one takes the CPU longer than the GPU needs for it, the GPU
waits for most of the step; a replay starts all of them at once. On an NVIDIA H200 whose CPU takes 35 µs for a kernel, a
step of 256 short texts takes 41 ms by launches, of which kernels run for 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MOST_GRAPHS = 64  # each holds its list of kernels; the memory of their tensors is shared


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A recorded pass. A replay reads `inputs`, adds to the gradients and writes `loss`: ()."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    loss: Tensor


class CudaGraphs:
    """Adds gradients of a loss to parameters, by graphs where it can.

    compute_loss: the loss of inputs on the device: (). It must not wait for the device, and must read nothing else that changes
    but the parameters, whose memory stays where it is.
    """

    def __init__(self, compute_loss: Callable[[Sequence[Tensor]], Tensor], parameters: list[nn.Parameter]) -> None:
        self.compute_loss = compute_loss
        self.parameters = parameters
        self.device = parameters[0].device
        self.graphs: dict[tuple[torch.Size, ...], StepGraph] = {}
        self._gradients: list[Tensor] = []  # what graphs add to, one for each parameter
        self._records = True
        self._is_warm = False  # libraries prepare themselves at the first pass, which must not be recorded

    def backward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Add the gradients of the loss of `inputs`, which are on the CPU, and return the loss: ().

        Inputs of the same shapes must need the same kernels. Raises what means that memory ran out.
        """
        shapes = tuple(value.shape for value in inputs)
        graph = self.graphs.get(shapes)
        if graph is None and self._is_warm and self._records:
            graph = self._try_to_record(inputs)
        if graph is None:
            return self._launch(inputs)
        for recorded, value in zip(graph.inputs, inputs, strict=True):
            recorded.copy_(value)
        self._let_parameters_have_the_gradients()
        graph.graph.replay()
        return graph.loss.clone()  # the next replay of any graph may write over it

    def _launch(self, inputs: Sequence[Tensor]) -> Tensor:
        """Do the same without a graph."""
        try:
            loss = self.compute_loss([value.to(self.device) for value in inputs])
            loss.backward()
        except RuntimeError:  # not enough memory: the caller will try smaller batches
            self.close()
            raise
        if not self._is_warm:
            # A parameter without a gradient must stay without one: the optimizer changes it otherwise.
            self.parameters = [parameter for parameter in self.parameters if parameter.grad is not None]
            self._is_warm = True
        return loss.detach()

    def close(self) -> None:
        """Free all graphs and record none any more: they hold memory that now is scarce."""
        self._records = False
        self.graphs.clear()

    def _try_to_record(self, inputs: Sequence[Tensor]) -> StepGraph | None:
        """Record a graph; None if that is not possible, after which none is recorded any more. Gradients stay as they are."""
        if len(self.graphs) >= MOST_GRAPHS:
            return None
        try:
            graph = self._record(inputs)
        except RuntimeError:  # not enough memory for both passes, or an operation that can't be recorded
            self.close()
            return None
        self.graphs[tuple(value.shape for value in inputs)] = graph
        return graph

    def _record(self, inputs: Sequence[Tensor]) -> StepGraph:
        if not self._gradients:
            self._gradients = [torch.zeros_like(parameter) for parameter in self.parameters]
        on_device = [value.to(self.device) for value in inputs]
        graph = torch.cuda.CUDAGraph()
        # Passes come one after the other, so their tensors may lie in the same memory.
        pool = next((other.graph.pool() for other in self.graphs.values()), None)
        # Other threads, such as those that watch memory, may use the GPU meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            loss = self.compute_loss(on_device)
            torch._foreach_add_(self._gradients, torch.autograd.grad(loss, self.parameters))
        return StepGraph(graph, on_device, loss.detach())

    def _let_parameters_have_the_gradients(self) -> None:
        """Make the gradients that graphs add to those of the parameters, with what the parameters had before."""
        if all(p.grad is gradient for p, gradient in zip(self.parameters, self._gradients, strict=True)):
            return
        torch._foreach_zero_(self._gradients)
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            if parameter.grad is not None:
                gradient.copy_(parameter.grad)
            parameter.grad = gradient
