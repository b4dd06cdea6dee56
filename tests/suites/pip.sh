# pip installs a wheel into a folder of a draft, and into a virtual environment that is in a draft itself.

setup() {
  debian python3 python3
  # Debian's python3 lacks the module that gives a virtual environment its pip.
  python3 -c 'import ensurepip' || debian_install python3-venv
}

checks() { check pip 120 check_pip; }

check_pip() {
  need python3
  local wheel=$reference/suitesdemo-1.0-py3-none-any.whl
  local pip=(-m pip --disable-pip-version-check install -q --no-index)
  program wheel "$wheel"
  python3 -m venv "$reference/venv"
  "$reference/venv/bin/python" "${pip[@]}" --target "$draft/site" "$wheel"
  same "$(PYTHONPATH=$draft/site "$reference/venv/bin/python" -c 'import suitesdemo; suitesdemo.main()')" 44850 imported
  # Programs, symlinks and pip itself run from the environment in the draft.
  python3 -m venv "$draft/venv"
  "$draft/venv/bin/python" "${pip[@]}" "$wheel"
  same "$("$draft/venv/bin/suitesdemo")" 44850 "run from the draft"
  "$draft/venv/bin/python" -m pip --disable-pip-version-check check
  "$draft/venv/bin/python" -m pip --disable-pip-version-check uninstall -qy suitesdemo
  refused ModuleNotFoundError "$draft/venv/bin/python" -c 'import suitesdemo'
}
