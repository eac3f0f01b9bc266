#!/usr/bin/env python3
"""pytorch_step.py: time one training step of an RNN / GRU / LSTM in PyTorch on the CPU.

This is the PEER of our own trainer in side-by-side benchmarks.  It runs unchanged on Debian 12's
python3-torch (1.13.1) and on 2.x, needs nothing but torch, and makes its own data.

One step =  zero_grad -> forward -> loss -> backward -> [statistics] -> clip_grad_norm_ -> optimizer.step

Run it so, with the python3 that has torch, not a pyenv shim (the two variables slow OpenBLAS down where a machine sets them; unset them for this command only):

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python3 pytorch_step.py \
        --cell lstm --layers 1 --batch 64 --time 64 --input 64 --hidden 256 --vocab 65 \
        --optimizer adam --threads 2 --stats none --json

    The STRONGEST peer at --threads 2 is torch 2.x on the openmp build of OpenBLAS (Debian: libopenblas0-openmp).
    On the pthread build (libopenblas0-pthread) torch's OpenMP threads and OpenBLAS's own threads fight for the
    cores: up to 20 times slower with --stats full.  The key blas_core says which build ran; quote it.

    ... --preset charlm            # one of the named shapes below (see PRESETS); 'all' = every one, one line each
    ... --check                    # no timing: proves that the manual loop gives the loss and the gradients of nn.LSTM & co
    ... --serve                    # reads one JSON object per line, {"cell": "gru", "min_steps": 5, ...}: flags that
                                   # differ from the defaults; answers each with its line. torch is loaded once.

Model
  --vocab 0   x (T,B,I) random floats -> nn.RNN|GRU|LSTM -> Linear(H,1) on the LAST step -> MSE
  --vocab V   tokens -> Embedding(V,I) -> nn.RNN|GRU|LSTM -> Linear(H,V) on EVERY step -> cross-entropy
  Layout is time-major (batch_first=False), which is PyTorch's fast one.  float32.

--stats
  none    PyTorch's fastest path: the fused nn.RNN / nn.GRU / nn.LSTM module, no statistics.  << the peer for speed
  params  the same, plus per-parameter gradient L2 norm, max|g| and a 64-bin histogram over [-max,max]
  loop    the hand-written time loop that 'full' needs, without any statistic (isolates the loop's price)
  full    what a PyTorch user must do to get OUR statistics: 'params' + for every layer and every time step the
          norm of the total gradient dL/dh_t.  The fused modules never expose that gradient, so the time loop is
          written by hand (input projection still batched over all T, the fastest simple form) with a
          tensor hook on each h_t.                             << the peer for "speed with full statistics"

Timing: --warmup steps are thrown away, then steps are timed one by one until both --min-steps and --seconds are
reached (never beyond --max-seconds); the median is the result, p10/p90/min tell the noise.

Keys of a line: median_ms min_ms p10_ms p90_ms n; cpu_ms cpu_min_ms (median / least CPU time of a step, all threads
together: with --threads 1 on a machine that does other work too, cpu_ms far below median_ms says that the run was
disturbed, and cpu_ms is then the better number); steps_per_s; tokens_per_s (=B*T/median);
gemm_gflop (matrix-product work of one step, as the algorithm needs it) and gflops (= gemm_gflop/median);
loss_first/loss_last (sanity: finite, falling); rss_start_mib (Python, torch and its libraries, before the network
is made) and peak_rss_mib, both of the whole process so far; torch, blas_core, threads.
"""
import argparse
import json
import os
import resource
import sys
import time

# name: (batch, time, input, hidden, vocab)
PRESETS = {
    "s128":    (32, 64, 64, 128, 0),
    "m256":    (64, 50, 128, 256, 0),
    "l512":    (32, 128, 128, 512, 0),
    "xl1024":  (16, 35, 256, 1024, 0),
    "charlm":  (64, 64, 64, 256, 65),
    "tiny":    (1, 100, 2, 32, 0),
    "adding":  (20, 400, 2, 128, 0),
}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
BINS = 64


def parser():
    p = argparse.ArgumentParser(description="time a PyTorch RNN training step on the CPU (see the docstring)")
    p.add_argument("--cell", choices=sorted(GATES), default="lstm")
    p.add_argument("--layers", type=int, default=1)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--time", type=int, default=64)
    p.add_argument("--input", type=int, default=64, help="input width, or embedding width with --vocab")
    p.add_argument("--hidden", type=int, default=128)
    p.add_argument("--vocab", type=int, default=0, help="0: regression on the last step; V: char-LM with V symbols")
    p.add_argument("--preset", default=None, help="one of %s, a comma list, or 'all'" % ", ".join(PRESETS))
    p.add_argument("--optimizer", choices=["sgd", "adam"], default="adam")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--clip", type=float, default=1.0, help="max norm for clip_grad_norm_; 0 = do not clip")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--stats", choices=["none", "params", "loop", "full"], default="none")
    p.add_argument("--warmup", type=int, default=3)
    p.add_argument("--min-steps", type=int, default=10)
    p.add_argument("--seconds", type=float, default=2.0, help="keep timing at least so long")
    p.add_argument("--max-seconds", type=float, default=60.0)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--no-mkldnn", action="store_true", help="switch oneDNN off (torch.backends.mkldnn)")
    p.add_argument("--flush-denormal", action="store_true")
    p.add_argument("--check", action="store_true", help="compare the manual loop with the fused module, no timing")
    p.add_argument("--json", action="store_true", help="print one JSON object per line instead of text")
    p.add_argument("--serve", action="store_true", help="answer JSON requests, one per line, until the input ends")
    return p


ARGS = parser().parse_args()
# Both thread pools (torch's OpenMP and a pthread-built OpenBLAS) must hear of it before torch is loaded.
for _v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_v] = str(ARGS.threads)

import torch  # noqa: E402
import torch.nn as nn  # noqa: E402
import torch.nn.functional as F  # noqa: E402


class Net(nn.Module):
    """Embedding? -> fused recurrent module -> Linear.  manual=True runs the same weights through a Python loop."""

    def __init__(self, cell, layers, inp, hidden, vocab):
        super().__init__()
        self.cell, self.layers, self.hidden, self.vocab = cell, layers, hidden, vocab
        self.emb = nn.Embedding(vocab, inp) if vocab else None
        self.rnn = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](inp, hidden, layers)
        self.head = nn.Linear(hidden, vocab if vocab else 1)

    def recurrent_manual(self, x, on_h):
        """Same arithmetic as the fused module; on_h(layer, t, h) sees every hidden state."""
        steps, batch = x.shape[0], x.shape[1]
        for layer in range(self.layers):
            w_ih, w_hh = getattr(self.rnn, "weight_ih_l%d" % layer), getattr(self.rnn, "weight_hh_l%d" % layer)
            b_ih, b_hh = getattr(self.rnn, "bias_ih_l%d" % layer), getattr(self.rnn, "bias_hh_l%d" % layer)
            w_hh_t = w_hh.t()
            h = x.new_zeros(batch, self.hidden)
            out = []
            if self.cell == "gru":          # the hidden bias of n sits inside r * (...): keep the two apart
                gx = F.linear(x, w_ih, b_ih).unbind(0)
                for t in range(steps):
                    gh = torch.addmm(b_hh, h, w_hh_t)
                    rx, zx, nx = gx[t].chunk(3, 1)
                    rh, zh, nh = gh.chunk(3, 1)
                    r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
                    n = torch.tanh(nx + r * nh)
                    h = n + z * (h - n)
                    on_h(layer, t, h)
                    out.append(h)
            else:
                gx = F.linear(x, w_ih, b_ih + b_hh).unbind(0)
                c = torch.zeros_like(h)
                for t in range(steps):
                    g = torch.addmm(gx[t], h, w_hh_t)
                    if self.cell == "rnn":
                        h = torch.tanh(g)
                    else:
                        i, f, n, o = g.chunk(4, 1)
                        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(n)
                        h = torch.sigmoid(o) * torch.tanh(c)
                    on_h(layer, t, h)
                    out.append(h)
            x = torch.stack(out)
        return x

    def loss(self, x, y, on_h=None):
        if self.emb is not None:
            x = self.emb(x)
        out = self.recurrent_manual(x, on_h) if on_h is not None else self.rnn(x)[0]
        if self.vocab:
            return F.cross_entropy(self.head(out).view(-1, self.vocab), y.view(-1))
        return F.mse_loss(self.head(out[-1]), y)


def gemm_flop(cell, layers, batch, steps, inp, hidden, vocab):
    """Matrix-product work of one training step: forward + gradient of the input + gradient of the weights."""
    rows, gates, total = batch * steps, GATES[cell] * hidden, 0
    for layer in range(layers):
        width = inp if layer == 0 else hidden
        proj, rec = 2 * rows * width * gates, 2 * rows * hidden * gates
        total += 3 * rec + (2 if layer == 0 and not vocab else 3) * proj  # raw inputs need no gradient
    head_rows, head_cols = (rows, vocab) if vocab else (batch, 1)
    return total + 3 * 2 * head_rows * hidden * head_cols


def grad_statistics(net):
    """Per parameter: L2 norm, max|g|, histogram of 64 bins over [-max, max]."""
    norms, maxima, hists = [], [], []
    for p in net.parameters():
        g = p.grad
        m = float(g.abs().max())
        norms.append(g.norm())
        maxima.append(m)
        hists.append(torch.histc(g, bins=BINS, min=-m, max=m) if m > 0 else torch.zeros(BINS))
    return torch.stack(norms).tolist(), maxima, torch.stack(hists).tolist()


def make(args, batch, steps, inp, hidden, vocab):
    torch.manual_seed(args.seed)
    net = Net(args.cell, args.layers, inp, hidden, vocab)
    if vocab:
        x, y = torch.randint(vocab, (steps, batch)), torch.randint(vocab, (steps, batch))
    else:
        x, y = torch.randn(steps, batch, inp), torch.randn(batch, 1)
    return net, x, y


def blas_core():
    """Kernel set and threading of the OpenBLAS that torch runs on, e.g. 'OpenBLAS Zen openmp'."""
    import ctypes
    with open("/proc/self/maps") as f:
        paths = sorted({ln.split()[-1] for ln in f if "openblas" in ln and "/" in ln})
    for path in paths:
        try:
            lib = ctypes.CDLL(path)
            lib.openblas_get_corename.restype = ctypes.c_char_p
            kind = {0: "sequential", 1: "pthread", 2: "openmp"}.get(lib.openblas_get_parallel(), "?")
            return "OpenBLAS %s %s" % (lib.openblas_get_corename().decode(), kind)
        except (OSError, AttributeError):
            pass
    return "unknown"


def peak_rss_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def bench(args, name, batch, steps, inp, hidden, vocab):
    rss_start = peak_rss_mib()
    net, x, y = make(args, batch, steps, inp, hidden, vocab)
    params = list(net.parameters())
    opt = (torch.optim.Adam if args.optimizer == "adam" else torch.optim.SGD)(params, lr=args.lr)
    manual = args.stats in ("loop", "full")

    def step():
        opt.zero_grad(set_to_none=True)
        h_norms = [[None] * steps for _ in range(args.layers)]

        def watch(layer, t, h):
            h.register_hook(lambda g: h_norms[layer].__setitem__(t, g.norm()))

        on_h = None if not manual else (watch if args.stats == "full" else (lambda layer, t, h: None))
        loss = net.loss(x, y, on_h)
        loss.backward()
        if args.stats in ("params", "full"):
            grad_statistics(net)
        if args.stats == "full":
            step.h_norms = [torch.stack(row).tolist() for row in h_norms]
        if args.clip > 0:
            nn.utils.clip_grad_norm_(params, args.clip)
        opt.step()
        return float(loss.detach())

    first = last = None
    for _ in range(max(1, args.warmup)):
        last = step()
        first = last if first is None else first
    times, cpu, begin = [], [], time.perf_counter()
    while True:
        c0, t0 = time.process_time(), time.perf_counter()
        last = step()
        t1, c1 = time.perf_counter(), time.process_time()
        times.append(t1 - t0)
        cpu.append(c1 - c0)
        if t1 - begin > args.max_seconds or (len(times) >= args.min_steps and t1 - begin >= args.seconds):
            break
    times.sort()
    cpu.sort()
    n = len(times)
    med = times[n // 2] if n % 2 else 0.5 * (times[n // 2 - 1] + times[n // 2])
    flop = gemm_flop(args.cell, args.layers, batch, steps, inp, hidden, vocab)
    return {
        "peer": "pytorch", "torch": torch.__version__, "config": name, "cell": args.cell, "layers": args.layers,
        "batch": batch, "time": steps, "input": inp, "hidden": hidden, "vocab": vocab,
        "optimizer": args.optimizer, "threads": torch.get_num_threads(), "stats": args.stats,
        "median_ms": round(med * 1e3, 4), "min_ms": round(times[0] * 1e3, 4),
        "p10_ms": round(times[n // 10] * 1e3, 4), "p90_ms": round(times[(9 * n) // 10] * 1e3, 4), "n": n,
        "cpu_ms": round(cpu[n // 2] * 1e3, 4), "cpu_min_ms": round(cpu[0] * 1e3, 4),
        "steps_per_s": round(1 / med, 3), "tokens_per_s": round(batch * steps / med, 1),
        "gemm_gflop": round(flop / 1e9, 5), "gflops": round(flop / med / 1e9, 2),
        "loss_first": round(first, 5), "loss_last": round(last, 5),
        "params": sum(p.numel() for p in params),
        "mkldnn": bool(torch.backends.mkldnn.is_available() and not args.no_mkldnn),
        "blas_core": blas_core(),
        "openblas_env": {k: os.environ[k] for k in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE") if k in os.environ},
        "rss_start_mib": rss_start, "peak_rss_mib": peak_rss_mib(),
    }


def check(args, name, batch, steps, inp, hidden, vocab):
    """The manual loop must give the same loss and gradients as the fused module."""
    net, x, y = make(args, batch, steps, inp, hidden, vocab)
    a = net.loss(x, y)
    ga = torch.autograd.grad(a, list(net.parameters()))
    b = net.loss(x, y, lambda layer, t, h: None)
    gb = torch.autograd.grad(b, list(net.parameters()))
    worst = max(float((p - q).norm() / (p.norm() + 1e-12)) for p, q in zip(ga, gb))
    ok = abs(float(a) - float(b)) < 1e-4 * max(1.0, abs(float(a))) and worst < 1e-3
    return {"check": name, "cell": args.cell, "layers": args.layers, "loss_fused": float(a), "loss_loop": float(b),
            "worst_relative_gradient_difference": worst, "ok": ok}


def shapes_of(args):
    """(name, batch, time, input, hidden, vocab) of each shape asked for; ValueError names an unknown preset."""
    if not args.preset:
        return [("custom", args.batch, args.time, args.input, args.hidden, args.vocab)]
    names = list(PRESETS) if args.preset == "all" else args.preset.split(",")
    unknown = [n for n in names if n not in PRESETS]
    if unknown:
        raise ValueError("unknown preset: %s (known: %s)" % (", ".join(unknown), ", ".join(PRESETS)))
    return [(n,) + PRESETS[n] for n in names]


def run(args, shape):
    torch.set_num_threads(args.threads)
    with torch.backends.mkldnn.flags(enabled=not args.no_mkldnn):
        return (check if args.check else bench)(args, *shape)


def serve():
    """Requests keep to the process's --threads: thread pools are sized when torch is loaded."""
    for line in sys.stdin:
        try:
            given = json.loads(line)
            args = parser().parse_args([])
            unknown = [k for k in given if not hasattr(args, k)]
            if unknown:
                raise ValueError("unknown flags: %s" % ", ".join(unknown))
            if given.get("threads", ARGS.threads) != ARGS.threads:
                raise ValueError("this process has --threads %d" % ARGS.threads)
            vars(args).update(given, threads=ARGS.threads)
            (shape,) = shapes_of(args)
            answer = run(args, shape)
        except (ValueError, TypeError, RuntimeError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def text(r):
    return ("%-8s %-4s L%d B%-4d T%-4d I%-4d H%-5d V%-4d %-4s thr=%d stats=%-6s  %9.3f ms/step "
            "(p10 %.3f p90 %.3f, n=%d)  %9.1f steps/s  %10.0f tok/s  %7.2f GFLOP/s" % (
                r["config"], r["cell"], r["layers"], r["batch"], r["time"], r["input"], r["hidden"],
                r["vocab"], r["optimizer"], r["threads"], r["stats"], r["median_ms"], r["p10_ms"],
                r["p90_ms"], r["n"], r["steps_per_s"], r["tokens_per_s"], r["gflops"]))


def main():
    if ARGS.flush_denormal:
        torch.set_flush_denormal(True)
    if ARGS.serve:
        return serve()
    try:
        shapes = shapes_of(ARGS)
    except ValueError as error:
        sys.exit(str(error))
    failed = False
    for shape in shapes:
        r = run(ARGS, shape)
        failed = failed or (ARGS.check and not r["ok"])
        print(json.dumps(r) if ARGS.json or ARGS.check else text(r), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
