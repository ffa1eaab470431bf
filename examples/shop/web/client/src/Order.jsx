import { useEffect, useRef, useState } from 'react';
import { getOrder } from './api.js';
import { price } from './basket.js';

export const isSettled = (order) => order.status !== 'placed';

/** Asks for the order until it is settled: quickly at first, then ever more slowly. */
function useOrder(id, first, onSettled) {
  const [order, setOrder] = useState(first);
  const settled = useRef(onSettled);
  settled.current = onSettled;
  useEffect(() => {
    let timer;
    let pause = 250;
    let over = false;
    setOrder(first);
    const ask = async () => {
      const fresh = await getOrder(id).catch(() => null);
      if (over) return;
      if (fresh) setOrder(fresh);
      if (fresh && isSettled(fresh)) return settled.current();
      pause = Math.min(pause * 1.4, 4000);
      timer = setTimeout(ask, pause);
    };
    ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [id]);
  return order;
}

const TITLES = {
  placed: 'Order placed',
  reserved: 'Stock set aside',
  charged: 'Payment taken',
  declined: 'Payment declined',
  refused: 'Out of stock',
  released: 'Stock given back',
  paid: 'Order paid',
};
const AHEAD = ['placed', 'reserved', 'charged', 'paid'];

export function Order({ id, first, onSettled, onClose }) {
  const order = useOrder(id, first, onSettled);
  const box = useRef(null);
  useEffect(() => box.current?.focus({ preventScroll: false }), [id]);

  const steps = order.journey ?? [];
  const start = steps.length ? Date.parse(steps[0].at) : 0;
  const done = new Set(steps.map((step) => step.step));
  const ahead = isSettled(order) ? [] : AHEAD.filter((step) => !done.has(step));
  return (
    <section className={`order ${order.status}`} ref={box} tabIndex={-1} aria-labelledby="order-title">
      <header>
        <div>
          <h2 id="order-title">Order № {order.number}</h2>
          <p>
            {order.items.map((item) => `${item.quantity} × ${item.name}`).join(', ')} · {price(order.totalCents)}
          </p>
        </div>
        <p className="stamp" role="status">
          {order.status}
        </p>
        <button className="close" onClick={onClose} aria-label="Close the order">
          ×
        </button>
      </header>
      <ol className="journey">
        {steps.map((step) => (
          <li key={step.step + step.at} className={`done ${step.step}`}>
            <b>{TITLES[step.step] ?? step.step}</b>
            <span className="when">{Math.max(0, Date.parse(step.at) - start)} ms</span>
            <span className="who">
              {step.service} <i>{step.runtime}</i>
            </span>
            <code>{step.host}</code>
          </li>
        ))}
        {ahead.map((step) => (
          <li key={step} className="ahead">
            <b>{TITLES[step]}</b>
          </li>
        ))}
      </ol>
      {order.reason && <p className="reason">{order.reason}</p>}
    </section>
  );
}
