"""Plain parts as an engineer has them: plates, brackets, flanges, shafts. Made for this project.

    from plain_parts import PLAIN_PARTS          # {name: CadQuery code}

styles.py draws and scores them with --plain. Growing outlines was improved on them, so they are no
figure for parts that were not seen.
"""

from __future__ import annotations

_START = "import cadquery as cq\n"

_BODIES = {
    "plate with four holes": (
        "result = cq.Workplane().box(80,50,8).faces('>Z').workplane()"
        ".rect(60,30,forConstruction=True).vertices().hole(7)"
    ),
    "plate with a hub": (
        "result = cq.Workplane().box(80,60,10).faces('>Z').workplane().circle(15).extrude(20)"
        ".faces('>Z').workplane().hole(14)"
    ),
    "bracket": (
        "result = cq.Workplane('XZ').polyline([(0,0),(60,0),(60,8),(8,8),(8,50),(0,50)])"
        ".close().extrude(40)"
    ),
    "bracket with holes": (
        "result = cq.Workplane('XZ').polyline([(0,0),(60,0),(60,8),(8,8),(8,50),(0,50)])"
        ".close().extrude(40)\n"
        "result = result.cut(cq.Workplane('XY',origin=(35,-20,0)).circle(6).extrude(20))"
        ".cut(cq.Workplane('YZ',origin=(-5,0,0)).center(-20,32).circle(6).extrude(20))"
    ),
    "flange": (
        "result = cq.Workplane().circle(50).extrude(12).faces('>Z').workplane().circle(25)"
        ".extrude(20).faces('>Z').workplane().hole(30).faces('<Z').workplane()"
        ".polarArray(38,0,360,6).hole(8)"
    ),
    "stepped shaft": (
        "result = cq.Workplane('YZ').circle(15).extrude(30).faces('>X').workplane()"
        ".circle(22).extrude(10).faces('>X').workplane().circle(12).extrude(40)"
    ),
    "channel": (
        "result = cq.Workplane('YZ')"
        ".polyline([(-25,0),(25,0),(25,40),(17,40),(17,8),(-17,8),(-17,40),(-25,40)]).close()"
        ".extrude(80)"
    ),
    "T-block": (
        "result = cq.Workplane('XZ')"
        ".polyline([(-30,0),(30,0),(30,12),(8,12),(8,45),(-8,45),(-8,12),(-30,12)]).close()"
        ".extrude(50)"
    ),
    "hexagon with a hole": (
        "result = cq.Workplane().polygon(6,40).extrude(16).faces('>Z').workplane().hole(20)"
    ),
    "washer": ("result = cq.Workplane().circle(30).circle(16).extrude(5)"),
    "plate with a slot": (
        "result = cq.Workplane().box(90,40,10).faces('>Z').workplane().slot2D(50,14).cutThruAll()"
    ),
    "block with a pocket": (
        "result = cq.Workplane().box(70,50,25).faces('>Z').workplane().rect(50,30).cutBlind(-15)"
    ),
    "wedge": (
        "result = cq.Workplane('XZ').polyline([(0,0),(60,0),(60,10),(20,40),(0,40)]).close()"
        ".extrude(35)"
    ),
    "stairs": (
        "result = cq.Workplane('XZ')"
        ".polyline([(0,0),(60,0),(60,15),(40,15),(40,30),(20,30),(20,45),(0,45)]).close()"
        ".extrude(40)"
    ),
    "plate with two bosses": (
        "result = cq.Workplane().box(100,40,10).faces('>Z').workplane()"
        ".pushPoints([(-30,0),(30,0)]).circle(12).extrude(15).faces('>Z').workplane()"
        ".pushPoints([(-30,0),(30,0)]).hole(10)"
    ),
    "plate with round corners": (
        "result = cq.Workplane().box(80,50,12).edges('|Z').fillet(12).faces('>Z').workplane()"
        ".hole(20)"
    ),
    "bearing block": (
        "result = cq.Workplane('XZ').moveTo(-25,0).lineTo(25,0).lineTo(25,25)"
        ".threePointArc((0,50),(-25,25)).close().extrude(20).faces('<Y')"
        ".workplane(origin=(0,0,25)).hole(24)\n"
        "result = result.union(cq.Workplane('XY',origin=(0,-10,-5)).box(90,20,10))"
    ),
    "cross": (
        "result = cq.Workplane().box(80,20,20).union(cq.Workplane().box(20,80,20))"
        ".union(cq.Workplane().circle(18).extrude(25))"
    ),
    "bracket with a rib": (
        "result = cq.Workplane('XZ').polyline([(0,0),(60,0),(60,8),(8,8),(8,50),(0,50)])"
        ".close().extrude(40)"
        ".union(cq.Workplane('XZ',origin=(0,-16,0)).polyline([(8,8),(45,8),(8,40)]).close().extrude(8))"
    ),
    "collar bush": (
        "result = cq.Workplane().circle(20).extrude(40).faces('>Z').workplane().hole(24)"
        ".faces('<Z').workplane().circle(30).circle(12).extrude(6)"
    ),
}

PLAIN_PARTS = {name: _START + body for name, body in _BODIES.items()}
