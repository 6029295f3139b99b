"""The texts of `prunus --help`, and the examples of each subcommand."""

DESCRIPTION = """Grow wide, ship narrow: train a wide network, get back the smallest one that does the job.

  prunus recipes                                   list the recipes
  prunus run street_erfnet train.epochs=3          train, shrink, export, measure, report
  prunus run camvid_erfnet data.root=/data/camvid  on your data
  prunus shrink my.nets:Net --weights w.pt ...     make a trained network narrow
  prunus trace torchvision.models:resnet18         list the channels that can be removed from a network
"""
EPILOG = """exit codes: 0 done; 1 refused or failed, the reason is on stderr; 2 the command line is wrong;
130 and 143 interrupted (Ctrl-C, SIGTERM): a checkpoint is written, the same command resumes from there
"""
EXAMPLES = {
    "run": """A recipe is a YAML file, or the name of one that comes with Prunus. Its values can be overridden:

  prunus run street_erfnet
  prunus run my.yaml shrink.budget.macs=0.3 train.epochs=50 output=runs/third

The folder of the run (runs/NAME) holds report.html, narrow.onnx, checkpoints and records. An interrupted run
resumes with the same command; with --accept-changes also under a changed recipe.""",
    "shrink": """The recipe gives the data, the task and the training settings; network, weights and budget are options:

  prunus shrink my.networks:Net --weights net.safetensors --budget latency=0.5 --recipe signs.yaml
  prunus shrink torchvision.models:resnet18 --set weights=null --weights resnet18.pth --budget macs=0.4 \\
      --recipe gtsrb_small weights.leave_out=[fc] train.optimizer.learning_rate=0.01

The network with these weights is the baseline. It trains for a third of the recipe's epochs unless
train.epochs=N is given. The folder of the run (runs/NAME-shrunk) has the layout of `prunus run`.""",
    "trace": """  prunus trace torchvision.models:resnet18
  prunus trace my.networks:Net --set num_classes=19 --shape 1,3,512,1024""",
    "export": """  prunus export torchvision.models:resnet18 --output resnet18.onnx
  prunus export my.networks:Net --set num_classes=19 --backend openvino
  prunus export runs/street_erfnet --output narrow.onnx""",
    "quantize": """  prunus quantize runs/signs/narrow.onnx --data runs/signs --max-drop 0.5
  prunus quantize runs/signs/narrow.onnx --data runs/signs --backend openvino --samples 512""",
    "bench": """  prunus bench wide=runs/street/wide.onnx narrow=runs/street/narrow.onnx --shape 3,128,256
  prunus bench torchvision.models:resnet18 torchvision.models:resnet34 --backends onnxruntime,openvino
  prunus bench wide=torchvision.models:resnet18 --resolutions 256x512,512x1024 --output table.csv
  prunus bench wide=runs/street/wide.onnx --target openvino --target onnxruntime,threads=2
  prunus bench runs/street --layers""",
    "compare": """  prunus compare runs/signs/wide.onnx runs/signs/narrow.onnx --data runs/signs
  prunus compare runs/first runs/second --data my.yaml --max-drop 1 --per class,condition --tags weather.csv

A network is an ONNX file, module:callable, or the folder of a run (its narrow network). The data and the task
are those of a recipe or a run. Kinds of slices: class, condition, size, distance, "class in condition".""",
    "target": """  prunus target kit kit/ my.networks:Net --shape 1,3,512,1024 --target onnxruntime,threads=4
  (copy kit/ to the target machine, run python measure.py there, bring measured.json back)
  prunus target read kit/ --output orin.json
  prunus run my.yaml target.table=orin.json target.remote=true target.threads=4 shrink.budget.solver=exact ...""",
    "sweep": """  prunus sweep my.yaml --budgets 0.8 0.6 0.4 0.2
  prunus sweep my.yaml --budgets 0.7 0.5 0.3 --bound latency output=/shared/frontier train.epochs=50

Each budget is a run in a folder of its own, runs/NAME-sweep/macs-0.8. The same command on other machines, in a folder
that all see, works on budgets that no other worker has; an interrupted one resumes. The last to finish times all
networks in turn and writes report.html, accuracy against milliseconds. journal.log is a journal of optuna's.""",
    "report": "  prunus report runs/street_erfnet",
    "recipes": "  prunus recipes",
}
