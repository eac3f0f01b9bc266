#!/usr/bin/python3
"""Writes tests/golden/nn/*.json: what PyTorch computes for small networks.

Run with Debian's python3-torch (1.13 on bookworm): tests/golden/make_nn_fixtures.py

Every case is computed by a plain loop over time on autograd, float64. Where torch.nn has the same
network (RNN, GRU, LSTM; packed sequences; no truncation) outputs, loss and gradients are taken from
there and the loop must agree to 1e-12, so the loop's through-time gradients can be trusted.

Gradients through time: each state is used twice, by its own time step (layer above, read-out,
h = o * tanh(c)) and by the next one. A clone stands between the two uses, so autograd tells the
parts apart: the gradient at the clone is what came through the next time step alone.

All inputs and weights are multiples of 1/1024: exact in float32.
"""
import json
import math
import pathlib

import torch

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
FOLDER = pathlib.Path(__file__).resolve().parent / "nn"
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "rnn_sigmoid": 1, "gru": 3, "lstm": 4}


def dyadic(generator, *shape, scale=1.0):
    values = scale * torch.randn(*shape, generator=generator)
    return torch.round(values * 1024) / 1024


def make_weights(case, generator):
    gates, hidden = GATES[case["cell"]], case["hidden"]
    shapes = {}
    width = case["features"]
    if case["input"] != "features":
        width = case["vocabulary"]
    if case["input"] == "embedding":
        width = case["embedding_width"]
        shapes["embedding.weight"] = (case["vocabulary"], width)
    for layer in range(case["layers"]):
        shapes[f"rnn.weight_ih_l{layer}"] = (gates * hidden, width if layer == 0 else hidden)
        shapes[f"rnn.weight_hh_l{layer}"] = (gates * hidden, hidden)
        shapes[f"rnn.bias_ih_l{layer}"] = (gates * hidden,)
        shapes[f"rnn.bias_hh_l{layer}"] = (gates * hidden,)
    shapes["readout.weight"] = (case["outputs"], hidden)
    shapes["readout.bias"] = (case["outputs"],)
    scale = case.get("scale", 1.0) / math.sqrt(hidden)
    return {name: dyadic(generator, *shape, scale=scale).requires_grad_()
            for name, shape in shapes.items()}


def make_data(case, generator):
    steps, rows = case["time_steps"], case["rows"]
    positions = (rows,) if case["loss_at"] == "last_step" else (steps, rows)
    data = {}
    if case["input"] == "features":
        data["inputs"] = dyadic(generator, steps, rows, case["features"])
    else:
        data["tokens"] = torch.randint(case["vocabulary"], (steps, rows), generator=generator)
    if case["loss"] == "mean_squared":
        data["target_values"] = dyadic(generator, *positions, case["outputs"])
    else:
        data["target_classes"] = torch.randint(case["outputs"], positions, generator=generator)
    data["weights"] = torch.randint(1, 5, positions, generator=generator) / 4.0
    return data


def network_input(case, weights, data):
    if case["input"] == "features":
        return data["inputs"]
    if case["input"] == "one_hot":
        return torch.nn.functional.one_hot(data["tokens"], case["vocabulary"]).double()
    return weights["embedding.weight"][data["tokens"]]


def cell_step(cell, x, h, c, w_ih, w_hh, b_ih, b_hh):
    a, b = x @ w_ih.T + b_ih, h @ w_hh.T + b_hh
    if cell == "lstm":
        i, f, g, o = (a + b).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if cell == "gru":
        (ar, az, an), (br, bz, bn) = a.chunk(3, dim=1), b.chunk(3, dim=1)
        z = torch.sigmoid(az + bz)
        n = torch.tanh(an + torch.sigmoid(ar + br) * bn)
        return (1 - z) * n + z * h, c
    phi = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu, "rnn_sigmoid": torch.sigmoid}[cell]
    return phi(a + b), c


def run_loop(case, weights, data):
    """Returns the read-out [T, B, O] and, for each layer and time step, the state's nodes."""
    rows, hidden, cut = case["rows"], case["hidden"], case["truncation"]
    layer_input = list(network_input(case, weights, data))
    nodes = []
    for layer in range(case["layers"]):
        parameters = [weights[f"rnn.{part}_l{layer}"]
                      for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        h_fed = c_fed = torch.zeros(rows, hidden)
        steps = []
        for t in range(case["time_steps"]):
            if cut and t and t % cut == 0:
                h_fed, c_fed = h_fed.detach(), c_fed.detach()
            h, c = cell_step(case["cell"], layer_input[t], h_fed, c_fed, *parameters)
            h_fed, c_fed = h.clone(), c.clone()
            steps.append((h, h_fed, c_fed))
        nodes.append(steps)
        layer_input = [step[0] for step in steps]
    top = torch.stack(layer_input)
    return top @ weights["readout.weight"].T + weights["readout.bias"], nodes


def run_module(case, weights, data):
    """The read-out [T, B, O] of torch.nn's own network; zero beyond a row's length."""
    classes = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
    x = network_input(case, weights, data)
    arguments = dict(input_size=x.shape[2], hidden_size=case["hidden"], num_layers=case["layers"])
    if case["cell"] in classes:
        module = classes[case["cell"]](**arguments)
    else:
        module = torch.nn.RNN(nonlinearity=case["cell"].split("_")[1], **arguments)
    module.load_state_dict({name[len("rnn."):]: value for name, value in weights.items()
                            if name.startswith("rnn.")})
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, case["lengths"])
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(module(packed)[0])
    readout = output @ weights["readout.weight"].T + weights["readout.bias"]
    return readout, {f"rnn.{name}": value for name, value in module.named_parameters()}


def loss_of(case, data, readout):
    lengths = torch.tensor(case["lengths"])
    if case["loss_at"] == "last_step":
        picked = readout[lengths - 1, torch.arange(case["rows"])]
        valid = torch.ones(case["rows"], dtype=torch.bool)
    else:
        picked = readout
        valid = torch.arange(case["time_steps"])[:, None] < lengths[None, :]
    if case["loss"] == "mean_squared":
        each = ((picked - data["target_values"]) ** 2).mean(-1)
    else:
        each = -torch.log_softmax(picked, -1).gather(-1, data["target_classes"][..., None])[..., 0]
    weight = data["weights"] * valid
    return (each * weight).sum() / weight.sum(), picked * valid[..., None]


def through_time(case, loss, nodes):
    """Per layer ||delta_t||, ||dL/dh_t|| and ||carry_t||: joint over (h, c) for the LSTM, null at a cut."""
    traces = []
    for steps in nodes:
        every = [node.requires_grad_() for step in steps for node in step]
        grads = torch.autograd.grad(loss, every, retain_graph=True, allow_unused=True)
        grads = [torch.zeros_like(n) if g is None else g for n, g in zip(every, grads)]
        norms = {"state_gradient_norm": [], "hidden_gradient_norm": [], "carry_norm": []}
        for t in range(len(steps)):
            h, h_fed, c_fed = grads[3 * t:3 * t + 3]
            if case["cell"] != "lstm":
                c_fed = torch.zeros_like(h)
            norms["state_gradient_norm"].append(math.sqrt((h**2).sum() + (c_fed**2).sum()))
            norms["hidden_gradient_norm"].append(h.norm().item())
            norms["carry_norm"].append(math.sqrt((h_fed**2).sum() + (c_fed**2).sum()))
        norms["carry_norm"].pop()
        cut = case["truncation"]
        ratios = []
        for t in range(len(norms["carry_norm"])):
            if cut and (t + 1) % cut == 0:
                assert norms["carry_norm"][t] == 0.0
                norms["carry_norm"][t] = None
            else:
                ratios.append(norms["carry_norm"][t] / norms["state_gradient_norm"][t + 1])
        norms["growth_factor"] = math.exp(sum(map(math.log, ratios)) / len(ratios))
        traces.append(norms)
    return traces


def assert_close(a, b, what):
    error = (a - b).abs().max().item()
    assert error <= 1e-12 * (1 + b.abs().max().item()), (what, error)


def compute(case, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = make_weights(case, generator)
    data = make_data(case, generator)
    readout, nodes = run_loop(case, weights, data)
    loss, outputs = loss_of(case, data, readout)
    traces = through_time(case, loss, nodes)
    names = list(weights)
    gradients = dict(zip(names, torch.autograd.grad(loss, list(weights.values()))))

    if case["cell"] != "rnn_sigmoid" and not case["truncation"]:
        module_readout, module_parameters = run_module(case, weights, data)
        module_loss, module_outputs = loss_of(case, data, module_readout)
        leaves = [module_parameters.get(name, weights[name]) for name in names]
        module_gradients = dict(zip(names, torch.autograd.grad(module_loss, leaves)))
        assert_close(outputs, module_outputs, "outputs")
        assert_close(loss, module_loss, "loss")
        for name in names:
            assert_close(gradients[name], module_gradients[name], name)
        outputs, loss, gradients = module_outputs, module_loss, module_gradients
    return weights, data, outputs, loss, gradients, traces


def flat(tensor):
    return tensor.detach().flatten().tolist()


def write(name, case, seed, with_gradients=True):
    weights, data, outputs, loss, gradients, traces = compute(case, seed)
    document = {"config": case, "loss": loss.item(),
                "data": {key: flat(value) for key, value in data.items()},
                "parameters": {key: flat(value) for key, value in weights.items()},
                "traces": traces}
    if with_gradients:
        document["outputs"] = flat(outputs)
        document["gradients"] = {key: flat(value) for key, value in gradients.items()}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    path = FOLDER / f"{name}.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes, loss {loss.item():.6f}, "
          f"growth {[round(t['growth_factor'], 4) for t in traces]}")


def case_of(cell, layers, **changes):
    case = dict(cell=cell, layers=layers, hidden=4, input="features", features=3, vocabulary=0,
                embedding_width=0, outputs=2, loss="mean_squared", loss_at="each_step",
                truncation=0, rows=3, time_steps=6, lengths=[6, 4, 1])
    case.update(changes)
    return case


def main():
    FOLDER.mkdir(exist_ok=True)
    seed = 1000
    for cell in GATES:
        for layers in (1, 2):
            seed += 1
            write(f"{cell}_{layers}_mse_each_ragged", case_of(cell, layers), seed)
            tokens = dict(vocabulary=5, outputs=5, loss="cross_entropy")
            if layers == 1:
                tokens.update(input="one_hot", features=0)
            else:
                tokens.update(input="embedding", features=0, embedding_width=3)
            write(f"{cell}_{layers}_ce_last_ragged",
                  case_of(cell, layers, loss_at="last_step", lengths=[6, 6, 3], **tokens), seed)
        write(f"{cell}_2_mse_each_truncated",
              case_of(cell, 2, truncation=2, lengths=[6, 6, 6]), seed)
        for at in ("each_step", "last_step"):
            write(f"{cell}_growth_{at}",
                  case_of(cell, 1, hidden=8, features=2, outputs=1, loss_at=at, rows=4,
                          time_steps=40, lengths=[40, 40, 33, 20],
                          scale=1.0 if cell == "rnn_relu" else 1.5), seed,
                  with_gradients=False)


if __name__ == "__main__":
    main()
