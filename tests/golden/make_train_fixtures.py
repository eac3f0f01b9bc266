#!/usr/bin/python3
"""Writes tests/golden/train/*.json: what PyTorch's optimizers make of small networks.

Run with Debian's python3-torch (1.13): tests/golden/make_train_fixtures.py
Each file holds initial weights, the settings, loss and gradient norm of each of 50 steps, and the
weights after some of them, in float64. Inputs and targets follow a formula that the test shares.

job_*.json are whole jobs: a table forecast in windows that carry the state on, wide enough for full
vectors of every CPU level and a rest. Their initial weights follow a formula that the test shares.
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


JOB_TIME_STEPS, JOB_ROWS, JOB_HIDDEN, TABLE_ROWS, HELD_OUT_SHARE = 9, 5, 37, 300, 0.2
JOBS = [
    # name, cell, layers, optimizer, clip
    ("job_tanh", "tanh", 1, dict(kind="sgd", lr=0.05, momentum=0.9, nesterov=False), 0.8),
    ("job_gru", "gru", 1, dict(kind="adam", lr=0.005, beta1=0.9, beta2=0.999, epsilon=1e-8), 0.4),
    ("job_lstm", "lstm", 2, dict(kind="adam", lr=0.005, beta1=0.9, beta2=0.999, epsilon=1e-8), 0.2),
]


def job_table():
    """The table as CSV, columns 'wave' and 'slope', and as PyTorch sees it: z-scored by its training part."""
    text = "wave,slope\n" + "".join(
        f"{100 + 20 * math.sin(0.3 * i):.4f},{0.5 * (i % 17):.4f}\n" for i in range(TABLE_ROWS))
    values = torch.tensor([[float(cell) for cell in line.split(",")]
                           for line in text.splitlines()[1:]], dtype=torch.float64)
    training = round(TABLE_ROWS * (1 - HELD_OUT_SHARE))
    known = values[:training]
    return text, (values - known.mean(0)) / known.std(0, unbiased=False), training


def set_initial_weights(network):
    """Each tensor from one linear congruential sequence, between plus and minus 1/sqrt(hidden)."""
    with torch.no_grad():
        for number, (_, parameter) in enumerate(network.named_parameters()):
            state = number + 1
            values = []
            for _ in range(parameter.numel()):
                state = (state * 1103515245 + 12345) % 2**31
                values.append((state / 2**30 - 1) / math.sqrt(JOB_HIDDEN))
            parameter.copy_(torch.tensor(values, dtype=torch.float64).view_as(parameter))


def run_job(cell, layers, settings, clip):
    kind = {"tanh": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    network = torch.nn.ModuleDict({"rnn": kind(2, JOB_HIDDEN, num_layers=layers),
                                   "readout": torch.nn.Linear(JOB_HIDDEN, 1)}).double()
    set_initial_weights(network)
    optimizer = make_optimizer(network, settings)
    text, table_z, training = job_table()
    stream = (training - 1) // JOB_ROWS
    windows = stream // JOB_TIME_STEPS
    record = {"torch": torch.__version__, "cell": cell, "layers": layers, "optimizer": settings,
              "clip": clip, "time_steps": JOB_TIME_STEPS, "rows": JOB_ROWS, "hidden": JOB_HIDDEN,
              "held_out_share": HELD_OUT_SHARE, "csv": text, "losses": [], "norms": []}
    state = None
    for step in range(STEPS):
        starts = [row * stream + step % windows * JOB_TIME_STEPS for row in range(JOB_ROWS)]
        inputs = torch.stack([table_z[s:s + JOB_TIME_STEPS] for s in starts], dim=1)
        targets = torch.stack([table_z[s + 1:s + 1 + JOB_TIME_STEPS, :1] for s in starts], dim=1)
        if step % windows == 0:
            state = None
        optimizer.zero_grad()
        states, state = network["rnn"](inputs, state)
        state = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()
        loss = torch.nn.functional.mse_loss(network["readout"](states), targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        record["losses"].append(loss.item())
        record["norms"].append(norm.item())
    record["weight_norms"] = {name: torch.linalg.vector_norm(p).item()
                              for name, p in network.named_parameters()}
    return record


def save(folder, name, record):
    clipped = sum(norm > record["clip"] for norm in record["norms"])
    assert 0 < clipped < STEPS, (name, sorted(record["norms"])[::7])  # Both branches run.
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


def main():
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train")
    os.makedirs(folder, exist_ok=True)
    for name, cell, settings, clip in CASES:
        save(folder, name, run(cell, settings, clip))
    for name, cell, layers, settings, clip in JOBS:
        save(folder, name, run_job(cell, layers, settings, clip))


if __name__ == "__main__":
    main()
