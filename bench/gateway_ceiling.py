import json, sys, subprocess, time
from pathlib import Path
sys.path[0] = str(Path(__file__).resolve().parents[1])
import psutil
from bench import subject
from bench.children import own_folder
from tests.fakes.fake_scenario import COMMAND
def run(streams, tokens, rate):
    sc = {"generate":{"batch":{"steps_per_second":rate,"wait_for":streams}}}
    with own_folder() as home, subject.running(home, {"STOKER_WORKER_COMMAND": ",".join(COMMAND), "FAKE_WORKER": json.dumps(sc)}) as daemon:
        daemon.wait_ready()
        port = daemon.status().http.rpartition(":")[2]
        p = psutil.Process(daemon.pid)
        child = subprocess.Popen([sys.executable, "bench/stream_load.py", port, str(streams), str(tokens)], stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        a = p.cpu_times()
        d = json.loads(child.stdout.readline())
        b = p.cpu_times()
        u, s = b.user-a.user, b.system-a.system
        print(d["deltas"], round(d["seconds"],2), "deltas/s", round(d["deltas"]/d["seconds"]), "cpu", u, s, "us/delta user %.1f sys %.1f" % (u/d["deltas"]*1e6, s/d["deltas"]*1e6), "cpu share %.2f"%((u+s)/d["seconds"]))
run(*map(int, sys.argv[1:4]))
