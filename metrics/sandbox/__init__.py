"""All that stands in or around a confined child: the perimeter to audit.

Reading order: warm.py starts the process that imported CadQuery once, worker.py is that process,
layers.py confines its children with landlock.py and seccomp.py, program.py runs a program there,
measure.py with tessellation.py and files.py measures what it left.
"""
