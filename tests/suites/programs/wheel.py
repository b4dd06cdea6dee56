"""Writes a wheel of 300 modules by hand, so that neither an index nor a build tool is needed."""
import base64, hashlib, sys, zipfile
files = {f"suitesdemo/part{n}.py": f"VALUE = {n}\n" for n in range(300)}
files["suitesdemo/__init__.py"] = """
import importlib
def total():
    return sum(importlib.import_module(f'suitesdemo.part{n}').VALUE for n in range(300))
def main():
    print(total())
"""
info = "suitesdemo-1.0.dist-info"
files[f"{info}/METADATA"] = "Metadata-Version: 2.1\nName: suitesdemo\nVersion: 1.0\n"
files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
files[f"{info}/entry_points.txt"] = "[console_scripts]\nsuitesdemo = suitesdemo:main\n"
def line(name, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(text)}\n"
files[f"{info}/RECORD"] = "".join(line(*item) for item in files.items()) + f"{info}/RECORD,,\n"
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
