"""Hostile programs for test_metrics_attacks.py: each tries one way out of the confinement.

Placeholders: SECRET_FILE holds a secret; CANARY is a folder that anybody may write to and holds
`keep.txt`; PORT is a listening TCP port of the tester; ABSTRACT an abstract Unix socket. The
tester's environment holds a secret too. None of them does lasting harm when nothing stops it,
except those named in NEEDS_LAYERS, which are only run confined.
"""

from __future__ import annotations

BOX = "\nresult = cq.Workplane().box(1, 1, 1)\n"

FORGE = """
import json, os, struct
def forge(header, body):
    text = json.dumps(header).encode()
    os.write(3, struct.pack('>I', len(text)) + text + body)
    os._exit(0)
def brep_of(shape):
    import io
    from OCP.BinTools import BinTools
    stream = io.BytesIO()
    BinTools.Write_s(shape.wrapped, stream)
    return stream.getvalue()
"""

TIME = {
    "endless loop": "while True: pass",
    "endless loop that catches everything": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    "long sleep": "import time; time.sleep(1000)",
    "infinite extrusion": "cq.Workplane().rect(1, 1).extrude(float('inf'))",
    "signals ignored": (
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass"
    ),
    "catastrophic regular expression": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "huge power": "x = 10 ** 10 ** 10",
    "thread left running": (
        "import threading\ndef spin():\n    while True: pass\n"
        "threading.Thread(target=spin).start()" + BOX
    ),
    "exit handler that never ends": (
        "import atexit\ndef spin():\n    while True: pass\natexit.register(spin)" + BOX
    ),
    "result that never ends to compute": (
        "class Slow(cq.Workplane):\n    def vals(self):\n        while True: pass\n"
        "result = Slow().box(1, 1, 1)"
    ),
    "export that never ends to compute": (
        "class Slow(cq.Workplane):\n    def vals(self):\n        while True: pass\n"
        "cq.exporters.export(Slow(), 'a.step')" + BOX
    ),
    "threads that spin": (
        "import threading\ndef spin():\n    while True: pass\n"
        "threads = [threading.Thread(target=spin) for _ in range(4)]\n"
        "for one in threads: one.start()\nfor one in threads: one.join()"
    ),
    "naps without end": "import time\nwhile True: time.sleep(.001)",
    "limit of CPU time raised, its signal ignored": (
        "import resource, signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "for limit in ((-1, -1), (10 ** 6, 10 ** 6), (10 ** 6, -1)):\n"
        "    try: resource.setrlimit(resource.RLIMIT_CPU, limit)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass"
    ),
    "timers set back": (
        "import signal\nsignal.alarm(0)\n"
        "for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):\n"
        "    signal.setitimer(timer, 0)\n"
        "for number in (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):\n"
        "    signal.signal(number, signal.SIG_IGN)\nwhile True: pass"
    ),
    "solid that takes long to measure": (
        "points = [(3 * (i % 60), 3 * (i // 60)) for i in range(3600)]\n"
        "holes = [cq.Wire.makeCircle(1, cq.Vector(*p), cq.Vector(0, 0, 1)) for p in points]\n"
        "rim = cq.Wire.makePolygon([(-2, -2), (180, -2), (180, 180), (-2, 180)], close=True)\n"
        "result = cq.Workplane(cq.Solid.extrudeLinear(rim, holes, cq.Vector(0, 0, 1)))"
    ),
    "event loop that never ends": (
        "import asyncio\nasync def spin():\n    while True: await asyncio.sleep(0)\n"
        "asyncio.run(spin())"
    ),
    "event loop with nothing to wait for": (
        "import asyncio\nasync def wait(): await asyncio.Event().wait()\nasyncio.run(wait())"
    ),
}

MEMORY = {
    "one large array": "x = bytearray(1 << 40)",
    "growing list": "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "numpy array": "x = np.ones(1 << 36)",
    "growing string": "x = 'a'\nwhile True: x += x",
    "deep recursion in C": "x = []\nfor _ in range(10 ** 7): x = [x]\nrepr(x)",
    "recursion without limit": ("import sys; sys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()"),
    "nested parentheses": "x = " + "(" * 5000 + ")" * 5000,
    "raised limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nx = bytearray(1 << 40)"
    ),
    "pretended files without end": (
        "n = 0\nwhile True:\n    n += 1\n"
        "    with open(f'{n}.bin', 'wb') as file: file.write(bytes(1 << 24))"
    ),
    "one pretended file without end": (
        "file = open('a.bin', 'wb')\nwhile True:\n    file.write(bytes(1 << 24))\n    file.flush()"
    ),
    "endless mesh": (
        "result = cq.Workplane().rarray(2, 2, 40, 40).circle(0.9).extrude(1)\n"
        "result = result.add(cq.Workplane().rarray(2, 2, 40, 40).sphere(0.99))"
    ),
}

PROCESSES = {
    "fork": "import os\nif os.fork() == 0:\n    import time; time.sleep(60)" + BOX,
    "bounded fork bomb": (
        "import os, time\nfor _ in range(4):\n    try: os.fork()\n    except OSError: pass\n"
        "time.sleep(60)"
    ),
    "children that spin": "import os\nfor _ in range(3): os.fork()\nwhile True: pass",
    "grandchildren that spin in sessions of their own": (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n"
        "        if os.fork() == 0:\n            while True: pass\n        os._exit(0)\n"
        "time.sleep(100)"
    ),
    "children whose time nobody is told": (
        "import os, signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n"
        "    if os.fork() == 0:\n        while time.process_time() < .02: pass\n"
        "        os._exit(0)\n    time.sleep(.02)"
    ),
    "daemon by double fork": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(3); open('CANARY/daemon.txt', 'w').close()\n"
        "        os.open('CANARY/daemon2.txt', os.O_CREAT)\n    os._exit(0)" + BOX
    ),
    "subprocess": "import subprocess; subprocess.run(['touch', 'CANARY/sub.txt'], check=True)",
    "shell": "import os; os.system('touch CANARY/shell.txt')" + BOX,
    "exec": "import os; os.execv('/bin/sh', ['sh', '-c', 'touch CANARY/exec.txt'])",
    "spawn": "import os; os.posix_spawn('/bin/touch', ['touch', 'CANARY/spawn.txt'], {})" + BOX,
    "multiprocessing": (
        "import multiprocessing as m\np = m.get_context('fork').Process(target=print)\n"
        "p.start(); p.join()" + BOX
    ),
    "kill the parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "stop the parent": "import os, signal; os.kill(os.getppid(), signal.SIGSTOP)",
    "kill every process": "import os, signal; os.kill(-1, signal.SIGKILL)",
    "kill the group of the tester": (
        "import os, signal\nos.killpg(os.getpgid(os.getppid()), signal.SIGTERM)"
    ),
    "signal by descriptor": (
        "import signal\nfrom os import pidfd_open, getppid\n"
        "signal.pidfd_send_signal(pidfd_open(getppid()), signal.SIGKILL)"
    ),
    "signal through an owned descriptor": (
        "import fcntl, os\nfcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())\n"
        "fcntl.fcntl(3, 10, 9)\nfcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC)" + BOX
    ),
    "ptrace": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.ptrace(16, os.getppid(), 0, 0) < 0: raise PermissionError('ptrace')"
    ),
    "write into the parent's memory": (
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)"
    ),
    "limits of the parent": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))"
    ),
    "priority of the parent": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)" + BOX,
}

FILES = {
    "read a file": "raise ValueError(open('SECRET_FILE').read())",
    "read by descriptor": (
        "import os\nraise ValueError(os.read(os.open('SECRET_FILE', os.O_RDONLY), 99))"
    ),
    "read through numpy": "raise ValueError(str(np.fromfile('SECRET_FILE', dtype='u1').tobytes()))",
    "read through ctypes": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nbuffer = ctypes.create_string_buffer(99)\n"
        "handle = libc.open(b'SECRET_FILE', 0)\nlibc.read(handle, buffer, 99)\n"
        "raise ValueError(buffer.value)"
    ),
    "read passwords": "raise ValueError(open('/etc/shadow').read())",
    "write a file": "import os\nos.write(os.open('CANARY/w.txt', os.O_CREAT | os.O_RDWR), b'x')",
    "write through OCC": (
        "from OCP.BRepTools import BRepTools\nresult = cq.Workplane().box(1, 1, 1)\n"
        "BRepTools.Write_s(result.val().wrapped, 'CANARY/part.brep')"
    ),
    "truncate a file": "import os; os.truncate('CANARY/keep.txt', 0)",
    "delete a file": "import os; os.remove('CANARY/keep.txt')",
    "delete a tree": "import shutil; shutil.rmtree('CANARY')" + BOX,
    "rename": "import os; os.rename('CANARY/keep.txt', 'CANARY/gone.txt')",
    "link": "import os; os.symlink('/etc', 'CANARY/link')",
    "make a folder by system call": (
        "import ctypes\nif ctypes.CDLL(None).mkdir(b'CANARY/folder', 0o777):\n"
        "    raise PermissionError('mkdir')"
    ),
    "change permissions": "import os; os.chmod('CANARY/keep.txt', 0)",
    "shared memory": (
        "from multiprocessing import shared_memory\n"
        "shared_memory.SharedMemory('attack_probe', create=True, size=64)"
    ),
    "list processes and their commands": (
        "import glob\nraise ValueError(''.join(open(p).read() for p in "
        "glob.glob('/proc/[0-9]*/environ')))"
    ),
    "environment": "import os; raise ValueError(str(dict(os.environ)))",
    "environment of the parent": (
        "import os\nraise ValueError(open(f'/proc/{os.getppid()}/environ').read())"
    ),
    "write by pathlib": "from pathlib import Path\nPath('CANARY/p.txt').write_text('x')" + BOX,
    "read by pathlib": (
        "from pathlib import Path\nraise ValueError(Path('SECRET_FILE').read_text())"
    ),
    "append to a file": (
        "with open('CANARY/keep.txt', 'a') as file: file.write('more')\n"
        "with open('CANARY/keep.txt', 'r+') as file: file.write('more')" + BOX
    ),
    "copy a secret into the pretended folder": (
        "import shutil\nshutil.copy('SECRET_FILE', 'a.txt')\nraise ValueError(open('a.txt').read())"
    ),
    "rename a secret into the pretended folder": (
        "import os\nos.replace('SECRET_FILE', '/home/user/a.txt')\n"
        "raise ValueError(open('/home/user/a.txt').read())"
    ),
    "export over a file": (
        "part = cq.Workplane().box(1, 1, 1)\npart.val().exportStep('CANARY/keep.txt')\n"
        "cq.exporters.export(part, 'CANARY/keep.txt', 'SVG')\nopen('CANARY/keep.txt').read()"
    ),
    "remove a pretended folder that is there": (
        "import os, tempfile\nfolder = tempfile.TemporaryDirectory()\nfolder.name = 'CANARY'\n"
        "folder.cleanup()\nos.makedirs('CANARY')\nos.rmdir('CANARY')\n"
        "open('CANARY/keep.txt', 'w').close()\nos.remove('CANARY/keep.txt')" + BOX
    ),
    "real functions behind the stand-ins": (
        "import os, posix\nreal = [cell.cell_contents for cell in os.open.__closure__]\n"
        "real = [one for one in real if callable(one)]\n"
        "for way in (*real, posix.open): way('CANARY/w.txt', os.O_CREAT | os.O_WRONLY, 0o666)"
    ),
    "change of folder by system call": (
        "import os, posix\nos.chdir('CANARY')\nopen('w.txt', 'w').write('x')\n"
        "posix.chdir('CANARY')\nposix.open('w.txt', os.O_CREAT | os.O_WRONLY)"
    ),
    "temporary file by system call": (
        "import os, posix\nposix.open('/tmp', os.O_TMPFILE | os.O_RDWR)\n"
        "posix.mkdir('CANARY/folder')"
    ),
    "load a module from a written file": (
        "import sys\nopen('CANARY/evil.py', 'w').write('x = 1')\nsys.path.insert(0, 'CANARY')\n"
        "import evil"
    ),
}

NETWORK = {
    "connect": (
        "import socket\ns = socket.create_connection(('127.0.0.1', PORT), 2)\ns.sendall(b'leak')"
    ),
    "datagram": (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.sendto(b'leak', ('127.0.0.1', PORT))"
    ),
    "abstract socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0ABSTRACT')\n"
        "s.sendall(b'leak')"
    ),
    "listen": "import socket\nsocket.create_server(('127.0.0.1', 0))",
    "web request": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT/leak')",
    "connect in an event loop": (
        "import asyncio\nasync def leak():\n"
        "    _, to = await asyncio.open_connection('127.0.0.1', PORT)\n    to.write(b'leak')\n"
        "asyncio.run(leak())"
    ),
    "shell in an event loop": (
        "import asyncio\nasync def leak():\n"
        "    await (await asyncio.create_subprocess_shell('touch CANARY/loop.txt')).wait()\n"
        "asyncio.run(leak())"
    ),
    "event loop with sockets": (
        "import asyncio, asyncio.selector_events, socket\nsocket.socketpair()\n"
        "asyncio.SelectorEventLoop().run_until_complete(asyncio.sleep(0))"
    ),
    "pass a descriptor to the tester": (
        "import socket\nsocket.socket(fileno=3).sendmsg([b'x'], "
        "[(socket.SOL_SOCKET, socket.SCM_RIGHTS, b'\\0\\0\\0\\0')])"
    ),
}

CRASHES = {
    "segmentation fault": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "silent exit": "import os; os._exit(0)",
    "exit with the code of unconfined": "import os; os._exit(71)",
    "raised in exit": "import sys; sys.exit('x' * 10 ** 7)",
    "null shape": "from OCP.TopoDS import TopoDS_Shape\nresult = cq.Shape(TopoDS_Shape())",
    "interpreter crash": ("import ctypes; ctypes.pythonapi.Py_DecRef(ctypes.c_void_p(64))"),
    "all descriptors closed": "import os; os.closerange(0, 100)" + BOX,
    "result descriptor replaced": "import os; os.dup2(0, 3)" + BOX,
    "result descriptor flooded": ("import os\nwhile True: os.write(3, b'x' * (1 << 20))"),
    "output flooded": "import sys\nfor _ in range(2000): print('x' * 10 ** 5)" + BOX,
    "message flooded": "raise ValueError('x' * 10 ** 8)",
    "message with control characters": "raise ValueError('\\x1b[2J\\x00\\r')",
    "exception that lies about itself": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise E()"
    ),
    "descriptors used up": "x = [open('/dev/null') for _ in range(10 ** 5)]",
}

FORGERIES = {
    "forged volume": FORGE + "forge({'ok': True, 'volume': 1.0, 'iou_best': 1.0}, b'')",
    "forged header length": "import os; os.write(3, b'\\xff' * 64); os._exit(0)",
    "forged kind": FORGE + "forge({'ok': False, 'kind': 'perfect', 'message': 'x'}, b'')",
    "forged types": FORGE + "forge({'ok': False, 'kind': ['crash'], 'message': {}}, b'')",
    "nested header": "import os; os.write(3, b'\\0\\0\\xff\\xff' + b'[' * 65535); os._exit(0)",
    "pickle": (
        "import os, pickle\nclass P:\n    def __reduce__(self):\n"
        "        return (os.system, ('touch CANARY/pickle.txt',))\n"
        "os.write(3, pickle.dumps(P())); os._exit(0)"
    ),
    "random B-rep": FORGE + "forge({'ok': True}, np.random.default_rng(0).bytes(5000))",
    "truncated B-rep": FORGE
    + ("b = brep_of(cq.Workplane().sphere(1).val()); forge({'ok': True}, b[:len(b) // 2])"),
    "flipped bytes in the B-rep": FORGE
    + (
        "b = bytearray(brep_of(cq.Workplane().box(1, 1, 1).fillet(0.1).val()))\n"
        "r = np.random.default_rng(1)\nfor i in r.integers(200, len(b), 60): b[i] ^= 255\n"
        "forge({'ok': True}, bytes(b))"
    ),
    "huge counts in the B-rep": FORGE
    + (
        "b = brep_of(cq.Workplane().box(1, 1, 1).val())\n"
        "forge({'ok': True}, b[:60] + b'\\x7f' * 40 + b[100:])"
    ),
    "not a number in the B-rep": FORGE
    + (
        "import struct\nb = brep_of(cq.Workplane().box(1, 1, 1).val())\n"
        "forge({'ok': True}, b.replace(struct.pack('<d', 0.5), struct.pack('<d', float('nan'))))"
    ),
}

TAMPERING = {
    "patched tessellate": "cq.Shape.tessellate = lambda *a, **k: ([], [])" + BOX,
    "patched volume": (
        "cq.Shape.Volume = lambda *a: 1e9\ncq.Shape.isValid = lambda *a: True" + BOX
    ),
    "patched metrics": (
        "import sys\nfor name, module in list(sys.modules.items()):\n"
        "    if name.startswith('metrics'):\n        for key in list(vars(module)):\n"
        "            if callable(vars(module)[key]): setattr(module, key, lambda *a, **k: 1.0)\n"
        + BOX
    ),
    "patched measuring": (
        "import sys\nsys.modules['metrics.sandbox.measure'].measure = lambda b: b''\n"
        "sys.modules['metrics.sandbox.measure'].ZERO_VOLUME = 1e9" + BOX
    ),
    "patched choice of the result": (
        "import sys\nsys.modules['metrics.sandbox.choosing'].choose_result = lambda *a: ['x']\n"
        "sys.modules['metrics.sandbox.runner'].choose_result = lambda *a: ['x']\n"
        "sys.modules['metrics.sandbox.stand_ins'].export_to = None\n"
        "sys.modules['metrics.sandbox.pretend_files'].PretendFiles.get = lambda *a: 'x'" + BOX
    ),
    "shown and exported, hostile": (
        "class Odd(cq.Workplane):\n    def vals(self): raise SystemExit\n"
        "x = []\nx.append(x)\nshow_object(x)\nshow_object(None)\ncq.exporters.export(x, x)\n"
        "cq.exporters.export()\nshow_object(Odd())\ncq.exporters.export(Odd(), 'a.step')" + BOX
    ),
    "what is left of the scorer": (
        "import sys, __main__\nseen = [sys.argv, sys.orig_argv, sys.path, vars(__main__)]\n"
        "if any('/metrics' in str(one) or 'descriptor' in str(one) for one in seen):\n"
        "    raise ValueError('LEAK')" + BOX
    ),
    "patched builtins": (
        "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True" + BOX
    ),
    "patched numpy": "np.ma.core.builtins.max = lambda *a, **k: 1.0\nnp.linalg.eigh = None" + BOX,
    "system calls through numpy": (
        "np.ma.core.builtins.__import__('os').system('touch CANARY/numpy.txt')" + BOX
    ),
    "patched OCC": (
        "from OCP.BRepGProp import BRepGProp\nBRepGProp.VolumeProperties_s = None" + BOX
    ),
    "frames up to the scorer": (
        "import sys\nframe, seen = sys._getframe(), []\nwhile frame:\n"
        "    seen.append(sorted(frame.f_locals))\n    for key in ('references', 'target', 'iou'):\n"
        "        if key in frame.f_locals: raise ValueError('LEAK ' + key)\n"
        "    frame = frame.f_back" + BOX
    ),
    "other samples in memory": (
        "import gc, io\nfor thing in gc.get_objects():\n"
        "    if isinstance(thing, dict) and any('REFERENCE_' + str('MARK') in str(v)[:10000]\n"
        "            for v in list(thing.values()) if isinstance(v, (str, bytes))):\n"
        "        raise ValueError('LEAK')" + BOX
    ),
    "other samples in raw memory": (
        "import re\nmark = re.compile(b'REFERENCE_[M]ARK')\nfor line in open('/proc/self/maps'):\n"
        "    low, high = [int(x, 16) for x in line.split()[0].split('-')]\n"
        "    if 'rw' not in line or '[v' in line: continue\n"
        "    with open('/proc/self/mem', 'rb') as memory:\n        memory.seek(low)\n"
        "        data = memory.read(high - low)\n"
        "    if mark.search(data): raise ValueError('LEAK')" + BOX
    ),
    "result that changes while it is read": (
        "class Odd(cq.Workplane):\n    def vals(self): return [1, None, self, 'x']\nresult = Odd()"
    ),
    "deep recursion by a list in itself": "result = []\nresult.append(result)",
    "object with hostile attributes": (
        "class Odd(cq.Shape):\n    def __init__(self): pass\n"
        "    def __getattr__(self, name): raise SystemExit\nresult = Odd()"
    ),
}

ATTACKS = {**TIME, **MEMORY, **PROCESSES, **FILES, **NETWORK, **CRASHES, **FORGERIES, **TAMPERING}
SLOW = (
    *TIME, "deep recursion in C", "recursion without limit", "endless mesh", "bounded fork bomb",
)  # fmt: skip
NEEDS_LAYERS = ("kill every process", "delete a tree", "kill the group of the tester")
