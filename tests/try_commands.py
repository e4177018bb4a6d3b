import sys, time, tempfile, traceback
from pathlib import Path
sys.path.insert(0,"tests")
t=time.time()
import torch; torch.set_num_threads(1)
from command_runs import *
from killed import *
print("import", time.time()-t)
root=Path(tempfile.mkdtemp()); t=time.time(); inputs=make_inputs(root/"in"); print("inputs", time.time()-t)
for c in COMMANDS:
    if len(sys.argv)>1 and c.name not in sys.argv[1:]: continue
    for k in range(2):
        out=root/f"{c.name}{k}"; out.mkdir(); c.before(inputs,out)
        t=time.time()
        try: st=c.run(inputs,out)
        except BaseException as e: traceback.print_exc(); st=-1
        d=time.time()-t
    out2=root/f"{c.name}2"; out2.mkdir(); c.before(inputs,out2)
    t=time.time(); ops=count_operations(lambda: c.run(inputs,out2), out2); d2=time.time()-t
    same=[n for n in c.content(root/f"{c.name}0").keys()|c.content(root/f"{c.name}1").keys() if c.content(root/f"{c.name}0").get(n)!=c.content(root/f"{c.name}1").get(n)]
    print("###",c.name, "status",st,"time %.2f child %.2f"%(d,d2),"ops",len(ops),"differ",same, "files", len(c.content(out2)))
