#!/bin/sh
# install.sh EXTRA...: makes /venv with what these extras of pyproject.toml need, and nothing besides.
set -eu

python3 docker/requirements.py "$@" >requirements.txt
# torch's pin is in pyproject.toml, where $TORCH may replace it.
grep -v '^torch==' constraints.txt >pins.txt
python3 -m venv /venv
/venv/bin/pip uninstall --yes --quiet setuptools # an old one; torch brings its own
/venv/bin/pip install --no-cache-dir --no-compile --disable-pip-version-check \
    --constraint pins.txt --requirement requirements.txt
/venv/bin/pip uninstall --yes --quiet pip

# Tests, static libraries and tools that no step uses. The headers of torch are those of what torch.compile writes.
cd /venv/lib/python3*/site-packages
rm -rf torch/test torch/share pyarrow/include pyarrow/tests pyarrow/src onnx/backend/test \
    onnxruntime/transformers onnxruntime/tools
rm -f pyarrow/libarrow_flight* pyarrow/_flight* pyarrow/libarrow_python_flight*
[ ! -d torch/bin ] || find torch/bin -type f ! -name torch_shm_manager -delete
find . -name '*.a' -delete
find sympy numpy -type d -name tests -prune -exec rm -rf {} + 2>/dev/null || true

# The root will be read-only, so this is the last occasion; it halves the time that PyTorch takes to import. Files that
# do not compile are meant for other versions of Python.
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib >/dev/null || true
