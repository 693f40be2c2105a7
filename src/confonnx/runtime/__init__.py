"""Running models: the only package that imports onnxruntime, always with its telemetry off.

:mod:`.session` loads one model and runs it, :mod:`.options` says how, :mod:`.ort` is the door to onnxruntime
and :mod:`.transfer` carries the values that its Python interface does not take as they are. :mod:`.registry`
holds all models of a server, and :mod:`.scheduler` runs their work on a bounded pool sized by :mod:`.cpus`.
"""
