#!/usr/bin/python3
"""Writes clip.json: what PyTorch's clip_grad_norm_ and clip_grad_value_ do to some gradients.

Needs Debian's python3-torch. Run it in this folder: ./make_clip_fixtures.py
Each case has the gradients before and after, tensor by tensor, flattened, as the decimal form of
the number's exact double value; NaN and infinity are strings.
"""

import json
import math

import torch

SIZES = [7, 15, 1, 17, 3]
torch.manual_seed(20)


def numbers(tensors):
    def number(x):
        return x if math.isfinite(x) else str(x)
    return [[number(x) for x in t.tolist()] for t in tensors]


def with_gradients(gradients):
    parameters = []
    for gradient in gradients:
        parameter = torch.zeros_like(gradient, requires_grad=True)
        parameter.grad = gradient.clone()
        parameters.append(parameter)
    return parameters


def norm_case(name, gradients, max_norm, order):
    parameters = with_gradients(gradients)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=order)
    return {"name": name, "kind": "norm", "order": str(order), "max_norm": max_norm,
            "norm": norm.item(), "precision": str(gradients[0].dtype).split(".")[1],
            "before": numbers(gradients), "after": numbers([p.grad for p in parameters])}


def value_case(name, gradients, bound):
    parameters = with_gradients(gradients)
    torch.nn.utils.clip_grad_value_(parameters, bound)
    return {"name": name, "kind": "value", "bound": bound,
            "precision": str(gradients[0].dtype).split(".")[1],
            "before": numbers(gradients), "after": numbers([p.grad for p in parameters])}


def main():
    cases = []
    for precision in (torch.float32, torch.float64):
        p = str(precision).split(".")[1]
        random = [torch.randn(n, dtype=precision) for n in SIZES]
        for order in (1.0, 2.0, math.inf):
            for max_norm in (0.5, 2.0, 1000.0):
                cases.append(norm_case(f"random_{p}_{order}_{max_norm}", random, max_norm, order))
        for bound in (0.1, 1.0, 100.0):
            cases.append(value_case(f"random_{p}_value_{bound}", random, bound))

        def one(values):
            return [torch.tensor(values, dtype=precision)]
        cases.append(norm_case(f"zero_{p}", one([0.0, 0.0, 0.0]), 1.0, 2.0))
        cases.append(norm_case(f"norm_equals_threshold_{p}", one([3.0, 4.0, 0.0]), 5.0, 2.0))
        cases.append(norm_case(f"l1_{p}", one([3.0, 4.0, 0.0]), 1.0, 1.0))
        cases.append(norm_case(f"inf_{p}", one([3.0, -4.0, 0.0]), 1.0, math.inf))
        cases.append(value_case(f"not_finite_{p}", one([math.nan, math.inf, -5.0]), 1.0))
    with open("clip.json", "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
