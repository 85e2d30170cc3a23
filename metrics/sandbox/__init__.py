"""All that stands in or around a confined child: the perimeter to audit.

In the scorer's process: client.py. In the process that it starts: fork_server.py, with lazy_vtk.py.
Around every child: layers.py, with landlock.py and seccomp.py. In the child that runs generated
code: runner.py, with choosing.py, stand_ins.py and pretend_files.py. In children that never run
any: measure.py, tessellation.py, cad_files.py.
README.md of metrics says in which order to read them, and what each may trust.
"""
