// Drawings of the goods, one small SVG each, in the page's own colours (style.css sets --ink, --sea, --red, --brass, --bone).

const drawings = {
  plimsolls: (
    <>
      <path className="bone" d="M22 66c8 1 14-2 19-9l9-13 11 5 5 11c5 8 17 10 25 13 7 3 9 8 8 13H22z" />
      <path className="sea" d="M61 49l5 11c5 8 17 10 25 13 7 3 9 8 8 13H78C66 78 58 66 55 47z" />
      <path className="line" d="M44 54l10 5M40 59l10 6M36 64l9 6" />
      <path className="ink" d="M20 84h80v6a4 4 0 0 1-4 4H24a4 4 0 0 1-4-4z" />
      <path className="red-line" d="M20 86h80" />
    </>
  ),
  lantern: (
    <>
      <path className="line" d="M46 36c0-24 28-24 28 0" />
      <rect className="brass" x="42" y="34" width="36" height="9" rx="3" />
      <path className="bone" d="M40 43h40l5 40H35z" />
      <path className="red" d="M60 53c10 11 8 24 0 24s-10-12 0-24z" />
      <path className="glow" d="M60 62c5 6 4 13 0 13s-5-7 0-13z" />
      <path className="line" d="M47 43l-4 40M73 43l4 40" />
      <rect className="brass" x="32" y="83" width="56" height="11" rx="4" />
    </>
  ),
  mug: (
    <>
      <path className="line thick" d="M78 52c22-4 22 30-1 28" />
      <path className="bone" d="M30 40h50v44a10 10 0 0 1-10 10H40a10 10 0 0 1-10-10z" />
      <rect className="sea" x="27" y="35" width="56" height="9" rx="4" />
      <circle className="ring" cx="55" cy="67" r="11" />
      <path className="ring" d="M38 67h34" />
    </>
  ),
  flags: (
    <>
      <path className="line thick" d="M20 26v70M20 30c30 10 52 8 80-4" />
      <path className="red" d="M26 33l18 4-2 24-16-4z" />
      <path className="bone" d="M48 38l17 0 0 25-18-1z" />
      <path className="sea" d="M48 50h17v13l-18-1z" />
      <path className="brass" d="M69 38l19-5 3 24-21 5z" />
      <path className="ink" d="M78 36l4 24 9-3-3-24z" />
    </>
  ),
  rope: (
    <>
      <path className="rope-edge" d="M86 84c14 2 20 8 18 14" />
      <path className="rope" d="M86 84c14 2 20 8 18 14" />
      {[82, 68, 54].map((y, level) => (
        <g key={y}>
          <ellipse className="rope-edge" cx="60" cy={y} rx={36 - level * 3} ry={11 - level} />
          <ellipse className="rope" cx="60" cy={y} rx={36 - level * 3} ry={11 - level} />
          <path className="twist" d={[-22, -11, 0, 11, 22].map((x) => `M${60 + x - 3} ${y + 15 - level - Math.abs(x) / 9}l6-8`).join('')} />
        </g>
      ))}
      <path className="red-line" d="M44 57v9M48 58v9" />
    </>
  ),
  compass: (
    <>
      <circle className="brass" cx="60" cy="62" r="37" />
      <circle className="bone" cx="60" cy="62" r="29" />
      <path className="line" d="M60 37v6M60 81v6M35 62h6M79 62h6" />
      <path className="red" d="M72 44l-6 22-11-8z" />
      <path className="ink" d="M48 80l7-22 11 8z" />
      <circle className="brass" cx="60" cy="62" r="3.5" />
      <rect className="brass" x="54" y="16" width="12" height="10" rx="4" />
    </>
  ),
  bell: (
    <>
      <path className="line thick" d="M60 20v12" />
      <circle className="hollow" cx="60" cy="20" r="6" />
      <path className="brass" d="M60 30c18 0 21 16 23 32 1 10 5 15 11 20H26c6-5 10-10 11-20 2-16 5-32 23-32z" />
      <path className="shine" d="M50 40c-5 8-5 20-9 32" />
      <rect className="ink" x="24" y="81" width="72" height="6" rx="3" />
      <circle className="red" cx="60" cy="93" r="7" />
    </>
  ),
  jacket: (
    <>
      <path className="brass" d="M44 28l-22 14-6 34 14 4 5-17v35h50V63l5 17 14-4-6-34-22-14z" />
      <path className="ink" d="M44 28c4 12 28 12 32 0l-6-5H50z" />
      <path className="line" d="M60 38v60M43 74h12M65 74h12" />
      <path className="bone-line" d="M35 90h50" />
    </>
  ),
  ring: (
    <>
      <circle className="lifering" cx="60" cy="62" r="28" />
      <circle className="liferingred" cx="60" cy="62" r="28" />
      <circle className="line" cx="60" cy="62" r="37" />
      <circle className="line" cx="60" cy="62" r="19" />
    </>
  ),
  spyglass: (
    <g transform="rotate(-28 60 60)">
      <rect className="brass" x="12" y="48" width="34" height="26" rx="3" />
      <rect className="ink" x="44" y="51" width="30" height="20" rx="2" />
      <rect className="red" x="72" y="54" width="28" height="14" rx="2" />
      <rect className="brass" x="98" y="51" width="9" height="20" rx="3" />
      <path className="shine" d="M18 54h22" />
    </g>
  ),
  biscuits: (
    <>
      <rect className="sea" x="28" y="50" width="64" height="44" rx="6" />
      <rect className="bone" x="28" y="62" width="64" height="18" />
      <circle className="brass" cx="60" cy="42" r="20" />
      <path className="dots" d="M52 36h.1M60 34h.1M68 36h.1M52 44h.1M60 46h.1M68 44h.1" />
      <path className="sea" d="M26 50h68v8H26z" />
      <path className="line" d="M40 71h40" />
    </>
  ),
  anchor: (
    <>
      <circle className="hollow" cx="60" cy="28" r="8" />
      <path className="anchor" d="M60 36v56M42 48h36" />
      <path className="anchor" d="M24 66c2 18 16 28 36 28s34-10 36-28" />
      <path className="ink" d="M24 58l9 15H15zM96 58l9 15H87z" />
    </>
  ),
};

/** The drawing of a product; one that the page does not know gets the load line. */
export function Drawing({ name }) {
  return (
    <svg viewBox="0 0 120 120" className="drawing" aria-hidden="true" focusable="false">
      {drawings[name] ?? <LoadLine />}
    </svg>
  );
}

function LoadLine() {
  return (
    <>
      <circle className="hollow" cx="60" cy="60" r="26" />
      <path className="anchor" d="M18 60h84" />
    </>
  );
}

/** The mark on a ship's hull that shows how far it may be loaded. */
export function Mark() {
  return (
    <svg viewBox="0 0 64 64" className="mark" aria-hidden="true" focusable="false">
      <circle cx="32" cy="32" r="17" />
      <path d="M4 32h56" />
    </svg>
  );
}

/** A ship with its containers, afloat exactly at its load line. */
export function Ship() {
  const boxes = [
    [70, 66, 'brass'], [118, 66, 'sea'], [166, 66, 'red'], [214, 66, 'bone'], [262, 66, 'sea'],
    [94, 40, 'red'], [142, 40, 'bone'], [190, 40, 'brass'], [238, 40, 'sea'],
    [142, 14, 'sea'], [190, 14, 'red'],
  ];
  return (
    <svg className="ship" viewBox="0 0 420 190" aria-hidden="true" focusable="false">
      {boxes.map(([x, y, colour]) => (
        <g key={`${x} ${y}`}>
          <rect className={colour} x={x} y={y} width="46" height="24" rx="2" />
          <path className="rib" d={`M${x + 9} ${y + 5}v14M${x + 18} ${y + 5}v14M${x + 28} ${y + 5}v14M${x + 37} ${y + 5}v14`} />
        </g>
      ))}
      <path className="bone" d="M322 92V40h46v52zM330 40V26h26v14z" />
      <path className="red" d="M336 26V8h14v18z" />
      <path className="pane" d="M330 50h8v8h-8zM344 50h8v8h-8zM330 66h8v8h-8zM344 66h8v8h-8z" />
      <path className="hull" d="M20 92h372l-16 84H62z" />
      <path className="below" d="M52 156h328l-6 34H66z" />
      <g className="loadline">
        <circle cx="206" cy="132" r="17" />
        <path d="M176 132h60" />
      </g>
    </svg>
  );
}
