#!/usr/bin/python3
"""Writes tests/golden/train/*.json: what PyTorch's optimizers make of small networks.

Run with Debian's python3-torch (1.13): tests/golden/make_train_fixtures.py
Each file holds initial weights, the settings, loss and gradient norm of each of 50 steps, and the
weights after some of them, in float64. Inputs and targets follow a formula that the test shares.
"""

import json
import math
import os

import torch

TIME_STEPS, ROWS, FEATURES, HIDDEN, OUTPUTS, STEPS = 12, 4, 3, 5, 2, 50
KEPT = (1, 2, 10, 50)

CASES = [
    # name, cell, optimizer, clip
    ("sgd_momentum_tanh", "tanh", dict(kind="sgd", lr=0.05, momentum=0.9, nesterov=False), 0.42),
    ("sgd_nesterov_gru", "gru", dict(kind="sgd", lr=0.05, momentum=0.9, nesterov=True), 0.42),
    ("sgd_plain_lstm", "lstm", dict(kind="sgd", lr=0.3, momentum=0.0, nesterov=False), 0.24),
    ("adam_tanh", "tanh", dict(kind="adam", lr=0.01, beta1=0.9, beta2=0.999, epsilon=1e-8), 0.35),
    ("adam_lstm", "lstm", dict(kind="adam", lr=0.02, beta1=0.8, beta2=0.95, epsilon=1e-6), 0.3),
]


def input_at(step, t, b, f):
    return math.sin(0.7 * (step + 1) + 0.31 * t + 1.3 * b + 0.9 * f)


def target_at(step, t, b, o):
    return 0.5 * math.cos(0.4 * (step + 1) + 0.23 * t + 0.8 * b + 1.7 * o)


def table(formula, step, width):
    return torch.tensor(
        [[[formula(step, t, b, i) for i in range(width)] for b in range(ROWS)]
         for t in range(TIME_STEPS)], dtype=torch.float64)


def make_network(cell):
    if cell == "tanh":
        rnn = torch.nn.RNN(FEATURES, HIDDEN)
    elif cell == "gru":
        rnn = torch.nn.GRU(FEATURES, HIDDEN)
    else:
        rnn = torch.nn.LSTM(FEATURES, HIDDEN)
    readout = torch.nn.Linear(HIDDEN, OUTPUTS)
    network = torch.nn.ModuleDict({"rnn": rnn, "readout": readout}).double()
    with torch.no_grad():  # Contracting: no recurrent block stretches.
        weight = rnn.weight_hh_l0
        for block in weight.split(HIDDEN):
            block.mul_(0.5 / torch.linalg.matrix_norm(block, 2))
    return network


def make_optimizer(network, settings):
    if settings["kind"] == "sgd":
        return torch.optim.SGD(network.parameters(), lr=settings["lr"],
                               momentum=settings["momentum"], nesterov=settings["nesterov"])
    return torch.optim.Adam(network.parameters(), lr=settings["lr"],
                            betas=(settings["beta1"], settings["beta2"]), eps=settings["epsilon"])


def weights_of(network):
    return {name: p.detach().flatten().tolist() for name, p in network.named_parameters()}


def run(cell, settings, clip):
    torch.manual_seed(7)
    network = make_network(cell)
    optimizer = make_optimizer(network, settings)
    record = {"torch": torch.__version__, "cell": cell, "optimizer": settings, "clip": clip,
              "time_steps": TIME_STEPS, "rows": ROWS, "features": FEATURES, "hidden": HIDDEN,
              "outputs": OUTPUTS, "initial": weights_of(network), "losses": [], "norms": [],
              "weights": {}}
    for step in range(STEPS):
        optimizer.zero_grad()
        states, _ = network["rnn"](table(input_at, step, FEATURES))
        loss = torch.nn.functional.mse_loss(network["readout"](states),
                                            table(target_at, step, OUTPUTS))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        record["losses"].append(loss.item())
        record["norms"].append(norm.item())
        if step + 1 in KEPT:
            record["weights"][str(step + 1)] = weights_of(network)
    return record


def main():
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train")
    os.makedirs(folder, exist_ok=True)
    for name, cell, settings, clip in CASES:
        record = run(cell, settings, clip)
        clipped = sum(norm > clip for norm in record["norms"])
        assert 0 < clipped < STEPS, (name, sorted(record["norms"])[::7])  # Both branches run.
        with open(os.path.join(folder, name + ".json"), "w") as file:
            json.dump(record, file, separators=(",", ":"))
            file.write("\n")


if __name__ == "__main__":
    main()
