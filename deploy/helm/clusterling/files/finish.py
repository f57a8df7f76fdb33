"""After a backup: adds what is not in the store, and removes the oldest. finish.py BACKUPS NAME KEEP [DATA]."""

import shutil
import sys
from pathlib import Path

backups, name, keep, *data = sys.argv[1:]
newest = Path(backups, name)
for one in data:
    # With SQLite the CA, which every kubeconfig trusts, is beside the store and not in it.
    shutil.copytree(Path(one, "pki"), newest / "pki")
    shutil.copy(Path(one, "admin.kubeconfig"), newest)
(newest / "COMPLETE").touch()

# Jobs are numbered by the minute they were due at, so their names are in order.
series = name.rsplit("-", 2)[0]
found = sorted(path for path in Path(backups).glob(f"{series}-*") if path.is_dir())
complete = [path for path in found if (path / "COMPLETE").exists()]
for path in complete[: -int(keep)]:
    shutil.rmtree(path)
    print(f"removed {path.name}")
# What was cut short before the newest is no backup.
for path in found:
    if path not in complete and path < newest:
        shutil.rmtree(path)
        print(f"removed {path.name}, which is incomplete")
print(f"kept {', '.join(path.name for path in complete[-int(keep) :])}")
