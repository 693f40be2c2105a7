"""Model files: which bytes a model is made of and their digest (D7), what it takes and gives, where a
repository keeps it.

Nothing here runs a model or imports onnxruntime, so the client and the command-line tools use it too:
:mod:`.digest` reads a model and names it by its hash, :mod:`.schema` reads its inputs and outputs,
:mod:`.repository` finds models in a directory, :mod:`.test_inputs` makes values a model accepts, and
:mod:`.documents` with :mod:`.tensor_files` reads and writes values as JSON, ``.npz`` and TensorProto files.
"""
