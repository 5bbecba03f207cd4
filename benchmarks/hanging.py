"""Sessions that hang in every place that runs user code, with a config and without; `benchmarks/hangs.py` runs them."""

BEGAN = """\
import pathlib, time

def begins():
    pathlib.Path("began").write_text(repr(time.time()))

def pytest_runtest_logreport(report):
    if report.failed and not pathlib.Path("told").exists():
        pathlib.Path("told").write_text(repr(time.time()))

def pytest_runtest_setup(item):
    if not pathlib.Path("began").exists():
        begins()

try:
    from pytest_overfit.run.watchdog import Watchdog
    enter = Watchdog._enter

    def entered(dog, block):
        if not dog._blocks:
            begins()
        enter(dog, block)

    Watchdog._enter = entered
except ImportError:
    pass
"""
HEAD = """\
import ctypes, pathlib, queue, sys, threading, time
import pytest, torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3))

def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(12, 8, generator=g), torch.arange(12) % 3

def loss(model, data):
    return F.cross_entropy(model(data[0]), data[1])

def hang():
    while True:
        time.sleep(0.05)

def within(name):
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.endswith(name):
            return True
        frame = frame.f_back
    return False

class Data(Dataset):
    def __len__(self): return 12
    def __getitem__(self, i): hang()

"""
CALL = {  # kind -> what stands below the head
    "nothing hangs": "def test_h(overfit): overfit(net, batch(), loss)",
    "loss sleeps": "def test_h(overfit): overfit(net, batch(), lambda m, d: time.sleep(1e4))",
    "loss loops in Python": """
        def bad(m, d):
            while True:
                pass
        def test_h(overfit): overfit(net, batch(), bad)""",
    "forward hangs on a lock": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.l = nn.Linear(8, 3)
            def forward(self, x):
                held = threading.Lock()
                held.acquire()
                held.acquire()
                return self.l(x)
        def test_h(overfit): overfit(Net, batch(), loss)""",
    "backward hangs on a queue": """
        class Bad(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x): return x.clone()
            @staticmethod
            def backward(ctx, g): return queue.Queue().get()
        def test_h(overfit): overfit(net, batch(), lambda m, d: Bad.apply(loss(m, d)))""",
    "step hangs": """
        def step(m, d, o): hang()
        def test_h(overfit): overfit(net, batch(), step=step, optimizer=lambda p: torch.optim.SGD(p, 0.1))""",
    "hangs at the 100th call": """
        class Net(nn.Module):
            calls = []
            def __init__(self):
                super().__init__()
                self.l = nn.Linear(8, 3)
            def forward(self, x):
                Net.calls.append(0)
                if len(Net.calls) > 100: hang()
                return self.l(x)
        def test_h(overfit): overfit(Net, batch(), loss)""",
    "factory hangs": """
        def factory(): hang()
        def test_h(overfit): overfit(factory, batch(), loss)""",
    "optimizer factory hangs": """
        def optimizer(parameters): hang()
        def test_h(overfit): overfit(net, batch(), loss, optimizer=optimizer)""",
    "loader's worker hangs": """
        def test_h(overfit): overfit(net, DataLoader(Data(), batch_size=4, num_workers=2), loss)""",
    "loader's worker hangs in C code": """
        class Stuck(Dataset):
            def __len__(self): return 12
            def __getitem__(self, i): ctypes.PyDLL(None).sleep(10000)
        def test_h(overfit): overfit(net, DataLoader(Stuck(), batch_size=4, num_workers=2), loss)""",
    "dataset hangs in the main process": """
        def test_h(overfit): overfit(net, DataLoader(Data(), batch_size=4), loss)""",
    "callable data hang": "def test_h(overfit): overfit(net, hang, loss)",
    "probe hangs at other values": """
        def bad(m, d):
            if not torch.equal(d[1], batch()[1]): hang()
            return loss(m, d)
        def test_h(overfit): overfit(net, batch(), bad)""",
    "probe after training hangs": """
        def bad(m, d):
            if within("inspector.py"): hang()
            return loss(m, d)
        def test_h(overfit): overfit(net, batch(), bad, max_steps=3)""",
    "trial hangs": """
        def bad(m, d):
            if within("candidates.py"): hang()
            return loss(m, d)
        def test_h(overfit): overfit(net, batch(), bad, max_steps=3)""",
    "evaluation hangs": """
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.l = nn.Linear(8, 3)
            def forward(self, x):
                if not self.training: hang()
                return self.l(x)
        def test_h(overfit): overfit(Net, batch(), loss, max_steps=3)""",
    "user code keeps Exception": """
        def bad(m, d):
            while True:
                try:
                    hang()
                except Exception:
                    pass
        def test_h(overfit): overfit(net, batch(), bad)""",
    "user code keeps BaseException": """
        def bad(m, d):
            while True:
                try:
                    hang()
                except BaseException:
                    pass
        def test_h(overfit): overfit(net, batch(), bad)""",
    "keeps it once, and goes on": """
        def bad(m, d):
            try:
                time.sleep(3600)
            except BaseException:
                pass
            return loss(m, d)
        def test_h(overfit): overfit(net, batch(), bad)""",
    "makes another error of it": """
        def bad(m, d):
            try:
                hang()
            except BaseException as error:
                raise ValueError("what now") from error
        def test_h(overfit): overfit(net, batch(), bad)""",
    "C code with the interpreter": """
        def bad(m, d): ctypes.PyDLL(None).sleep(10000)
        def test_h(overfit): overfit(net, batch(), bad)""",
    "C code without the interpreter": """
        def bad(m, d):
            mutex = ctypes.create_string_buffer(64)
            while True:
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
        def test_h(overfit): overfit(net, batch(), bad)""",
    "thread of the user's, not joined": """
        def bad(m, d):
            t = threading.Thread(target=hang, daemon=True)
            t.start()
            t.join()
        def test_h(overfit): overfit(net, batch(), bad)""",
    "off the main thread": """
        def bad(m, d): hang()
        def test_h(overfit):
            t = threading.Thread(target=lambda: overfit(net, batch(), bad))
            t.start()
            t.join()""",
    "the second seed": """
        calls = []
        def factory():
            calls.append(0)
            if len(calls) > 1: hang()
            return net()
        def test_h(overfit): overfit(factory, batch(), loss, seeds=[0, 1, 2], pass_at_least=1, max_steps=3)""",
}
CONFIG = """\
exp_name: tiny
img_size: 56
seed_value: 0
max_epochs: 30
val_epoch_freq: 5
data:
  train: &split
    common_config: {fix_img_num: 2, fix_aspect_ratio: 0.92}
  val: *split
model: {_target_: conftest.Net}
loss: {_target_: pytest_overfit.two_view.reference.MultitaskLoss}
optim:
  optimizer: {_target_: torch.optim.AdamW, lr: 0.05, weight_decay: 0.0}
overfit:
  pair: {source: render, width: 160, height: 120}
  threads: 1
  steps_per_epoch: 20
"""
CONFTEST = """
from tests.support.tiny import Memoriser
class Net(Memoriser):
    pass
"""
CONFIGS = {
    "config: validation hangs": """
        class Net(Net):
            def forward(self, *args, **kwargs):
                if not self.training and within("loop.py"): hang()
                return super().forward(*args, **kwargs)""",
    "config: the last look hangs": """
        class Net(Net):
            def forward(self, *args, **kwargs):
                if not self.training and within("runner.py") and not within("loop.py"): hang()
                return super().forward(*args, **kwargs)""",
    "config: building the model hangs": """
        class Net(Net):
            def __init__(self): hang()""",
    "config: the data hang": """
        @pytest.fixture
        def overfit_dataset(overfit_pair): return Data()""",
    "config: trial hangs": """
        class Net(Net):
            def forward(self, *args, **kwargs):
                if within("candidates.py"): hang()
                return super().forward(*args, **kwargs)""",
}
